"""Stage: a published checkpoint -> the text model alone, in BF16, as training reads it.

In: `base`, a vision-language checkpoint in FP8 or BF16 in one of the published layouts, or a
text-only one in BF16, F16 or F32. Out: config.json, model*.safetensors, the tokenizer and its chat
template, or the one that the recipe chooses. Slabs of rows pass one at a time; everything that can
be known from headers and configs, and whether the GGUF converter will know the tokenizer, is
checked before the first one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.checkpoint.gguf_layout import check_converter
from pipeline.checkpoint.other_family import is_listed
from pipeline.checkpoint.pre_tokenizer import check_pre_tokenizer
from pipeline.checkpoint.shards import read_checkpoint, write_checkpoint
from pipeline.checkpoint.text_config import read_config
from pipeline.checkpoint.weights import open_weights, write_small_files
from pipeline.log import say, step


@dataclass(frozen=True, kw_only=True)
class Options:
    chat_template: str
    cpu_threads: int


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Write the text-only checkpoint of `base`."""
    torch.set_num_threads(options.cpu_threads)
    base = inputs["base"]
    weights = open_weights(base)
    say(str(weights.names))
    check_pre_tokenizer(base)
    if not is_listed(weights.config):
        check_converter(weights, base, options.chat_template)
    write_small_files(base, out, options.chat_template)
    with step("dequantize" if weights.names.scales else "copy weights"):
        write_checkpoint(out, weights.shapes, weights.read_rows)
    check_text_checkpoint(out, weights.shapes)


def check_text_checkpoint(directory: Path, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Read back what was written: BF16 only, no quantization, exactly these tensors."""
    config = read_config(directory / "config.json")
    written = read_checkpoint(directory)
    assert "quantization_config" not in config
    assert {name: entry.shape for name, entry in written.entries.items()} == expected
    assert {entry.dtype for entry in written.entries.values()} == {"BF16"}
    size = sum(entry.size_bytes for entry in written.entries.values())
    say(f"text-only checkpoint: {len(expected)} tensors, {size // 2:,} parameters, {size:,} bytes")
