"""Stage: a published checkpoint -> its text model alone, in BF16.

In: `base`, a vision-language checkpoint in FP8 or BF16 as Mistral publishes it, or a text-only one
in BF16, F16 or F32. Out: config.json, model*.safetensors, the tokenizer and its chat template.
Tensors pass one at a time; everything that can be known from headers and configs, and whether the
GGUF converter will know the tokenizer, is checked before the first one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoint.dequantize import dequantize
from pipeline.checkpoint.names import NamePlan, plan_names
from pipeline.checkpoint.pre_tokenizer import check_pre_tokenizer
from pipeline.checkpoint.safetensors_header import TensorEntry
from pipeline.checkpoint.shards import Checkpoint, ShardWriter, read_checkpoint, write_json
from pipeline.checkpoint.text_config import make_text_config, read_config
from pipeline.checkpoint.text_tensors import list_tensor_shapes
from pipeline.checkpoint.tokenizer_files import copy_tokenizer, read_chat_template
from pipeline.errors import StageError
from pipeline.log import say, step

# An FP8 weight whose scale was forgotten reaches 448; real projections stay below 10.
_SANE_MAX = 100.0

_FLOATS = ("BF16", "F16", "F32", "F8_E4M3", "F8_E5M2")


@dataclass(frozen=True, kw_only=True)
class Options:
    cpu_threads: int


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Write the text-only checkpoint of `base`."""
    torch.set_num_threads(options.cpu_threads)
    source = inputs["base"]
    base = read_checkpoint(source)
    plan = plan_names(base.entries)
    say(str(plan))
    config = _make_config(source, plan)
    _check_tensors(base, plan, list_tensor_shapes(config))
    read_chat_template(source)
    check_pre_tokenizer(source)
    with step("dequantize" if plan.scales else "copy weights"):
        _write_weights(base, plan, config, out)
    write_json(out / "config.json", config)
    copy_tokenizer(source, out)
    check_text_checkpoint(out)


def _make_config(source: Path, plan: NamePlan) -> dict[str, Any]:
    generation = source / "generation_config.json"
    return make_text_config(
        read_config(source / "config.json"),
        read_config(generation) if generation.is_file() else {},
        has_head="lm_head.weight" in plan.weights,
    )


def _check_tensors(
    base: Checkpoint, plan: NamePlan, expected: Mapping[str, tuple[int, ...]]
) -> None:
    """Refuse a checkpoint whose weights are not those that its config asks for."""
    for name in sorted({*expected} ^ {*plan.weights}):
        raise StageError(
            "the weights are not those of the config",
            on=plan.weights.get(name, name),
            why="the config asks for it, and it is missing"
            if name in expected
            else "the config does not ask for it: it has fewer layers, or another vocabulary head",
            then="get config.json and the weights from the same version of the model",
        )
    for name, shape in expected.items():
        _check_entry(base.entries[plan.weights[name]], shape)


def _check_entry(entry: TensorEntry, shape: tuple[int, ...]) -> None:
    if entry.shape != shape or entry.dtype not in _FLOATS:
        raise StageError(
            "a weight is not of the config's size",
            on=f"{entry.shard.name}, tensor {entry.name}",
            why=f"it is {entry.dtype} {entry.shape}, and the config asks for a float {shape}",
            then="get config.json and the weights from the same version of the model",
        )


def _write_weights(base: Checkpoint, plan: NamePlan, config: dict[str, Any], out: Path) -> None:
    writer = ShardWriter(out)
    for name in list_tensor_shapes(config):
        weight = base.read(plan.weights[name])
        if name in plan.scales:
            weight = dequantize(weight, base.read(plan.scales[name]), name=plan.weights[name])
        writer.add(name, check_sane(weight.bfloat16(), name))
    writer.finish()


def check_sane(weight: torch.Tensor, name: str) -> torch.Tensor:
    """Return the weight.

    Raises StageError when it is not finite, or so large that its scale must have been lost.
    """
    largest = weight.abs().max().item()
    if not torch.isfinite(weight).all() or (weight.dim() > 1 and largest > _SANE_MAX):
        raise StageError(
            "a weight is not sane",
            on=name,
            why=f"its largest magnitude is {largest:g}: damaged, or its FP8 scale was lost",
            then="copy or download the checkpoint again",
        )
    return weight


def check_text_checkpoint(directory: Path) -> None:
    """Read back what was written: BF16 only, no scales, exactly the tensors of the config."""
    config = read_config(directory / "config.json")
    written = read_checkpoint(directory)
    expected = list_tensor_shapes(config)
    assert "quantization_config" not in config
    assert {name: entry.shape for name, entry in written.entries.items()} == expected
    assert {entry.dtype for entry in written.entries.values()} == {"BF16"}
    assert not any("scale" in name for name in written.entries)
    size = sum(entry.size_bytes for entry in written.entries.values())
    say(f"text-only checkpoint: {len(expected)} tensors, {size // 2:,} parameters, {size:,} bytes")
