"""Stage: a checkpoint and a LoRA adapter -> one 16-bit checkpoint with the adapter merged in.

In: `text`, text-only or as published, and `adapter` (PEFT). Out: the layout of `text`, for
transformers, vLLM and SGLang, with the weights of `weights.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.checkpoint.shards import write_checkpoint
from pipeline.checkpoint.text import check_text_checkpoint
from pipeline.checkpoint.weights import open_weights, write_small_files
from pipeline.log import step


@dataclass(frozen=True, kw_only=True)
class Options:
    cpu_threads: int


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Write `text` with `adapter` merged in."""
    torch.set_num_threads(options.cpu_threads)
    weights = open_weights(inputs["text"], inputs["adapter"])
    assert weights.adapter is not None
    with step(f"merge {weights.adapter}"):
        write_checkpoint(out, weights.shapes, weights.read_rows)
    write_small_files(inputs["text"], out)
    check_text_checkpoint(out, weights.shapes)
