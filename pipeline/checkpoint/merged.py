"""Stage: the text-only checkpoint and a LoRA adapter -> one checkpoint with the adapter merged in.

In: `text` and `adapter` (PEFT). Out: the layout of `text`, with W + s B A in place of each adapted
W, where s is alpha / r (rsLoRA: alpha / sqrt(r)); the sum is made in float32 and rounded once to
BF16, as PEFT's merge_and_unload does. All of the adapter is applied, or the stage fails.
"""

import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.checkpoint.shards import Checkpoint, ShardWriter, read_checkpoint, read_single
from pipeline.checkpoint.text import check_sane, check_text_checkpoint
from pipeline.checkpoint.text_config import read_config
from pipeline.checkpoint.text_tensors import list_tensor_shapes
from pipeline.checkpoint.tokenizer_files import copy_tokenizer
from pipeline.errors import StageError
from pipeline.log import say, step

ADAPTER = "adapter_model.safetensors"

_LORA_NAME = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight")

# What a PEFT config must say for the formula above to be all of it.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    # Other initialisations change the base weights themselves.
    "init_lora_weights": (True, False, "gaussian", "orthogonal"),
}

# What it may say besides: what the tensors say too, or what mattered in training alone.
# A key that is neither here nor above, and is set, is a feature that is not merged.
_WITHOUT_EFFECT = frozenset({
    "auto_mapping", "base_model_name_or_path", "ensure_weight_tying", "exclude_modules",
    "inference_mode", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout",
    "megatron_core", "peft_version", "qalora_group_size", "r", "revision", "target_modules",
    "task_type", "use_rslora",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    cpu_threads: int


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA adapter: per weight of the checkpoint, the names of its two factors."""

    tensors: Checkpoint
    factors: Mapping[str, tuple[str, str]]
    scaling: float


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Write `text` with `adapter` merged in."""
    torch.set_num_threads(options.cpu_threads)
    text = read_checkpoint(inputs["text"])
    adapter = read_adapter(inputs["adapter"])
    _check_fit(text, adapter)
    with step(f"merge {len(adapter.factors)} modules"):
        _write_weights(text, adapter, out)
    shutil.copyfile(inputs["text"] / "config.json", out / "config.json")
    copy_tokenizer(inputs["text"], out)
    check_text_checkpoint(out)


def merge(
    weight_OI: torch.Tensor, a_RI: torch.Tensor, b_OR: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Return bf16(W + s B A), rounded once. Pure."""
    return (weight_OI.float() + (b_OR.float() @ a_RI.float()) * scaling).bfloat16()


def read_adapter(directory: Path) -> Adapter:
    """Return the adapter, its config and the pairs of its factors checked.

    Raises StageError for whatever would not be merged by W + s B A.
    """
    config = read_config(directory / "adapter_config.json")
    for key, value in config.items():
        plain = value in _PLAIN[key] if key in _PLAIN else key in _WITHOUT_EFFECT or not value
        if not plain:
            raise _make_error(f"{key} = {value!r}", "only plain LoRA can be merged for now")
    rank, alpha = config["r"], config["lora_alpha"]
    tensors = read_single(directory / ADAPTER)
    scaling = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    return Adapter(tensors=tensors, factors=_pair_factors(tensors), scaling=scaling)


def _pair_factors(tensors: Checkpoint) -> dict[str, tuple[str, str]]:
    """Return (name of A, name of B) per weight; every tensor of the adapter must be in a pair."""
    sides: dict[str, dict[str, str]] = {}
    for name in tensors.entries:
        match = _LORA_NAME.fullmatch(name)
        if match is None:
            raise _make_error(f"tensor {name}", "it is no factor of a LoRA pair")
        sides.setdefault(f"{match['module']}.weight", {})[match["side"]] = name
    for weight, pair in sides.items():
        if len(pair) != 2:
            raise _make_error(
                f"tensor {min(pair.values())}", f"the other factor of {weight} is missing"
            )
    if not sides:
        raise _make_error(ADAPTER, "it adapts nothing")
    return {weight: (pair["A"], pair["B"]) for weight, pair in sides.items()}


def _check_fit(text: Checkpoint, adapter: Adapter) -> None:
    """Refuse an adapter with a pair that fits no weight of the checkpoint."""
    for weight, (a_name, b_name) in adapter.factors.items():
        if weight not in text.entries:
            raise _make_error(f"tensor {a_name}", f"the checkpoint has no {weight}")
        a_RI, b_OR = adapter.tensors.entries[a_name].shape, adapter.tensors.entries[b_name].shape
        if text.entries[weight].shape != (*b_OR[:1], *a_RI[1:]) or b_OR[1:] != a_RI[:1]:
            why = f"A {a_RI} and B {b_OR} do not fit {weight} {text.entries[weight].shape}"
            raise _make_error(f"tensor {a_name}", why)


def _write_weights(text: Checkpoint, adapter: Adapter, out: Path) -> None:
    writer = ShardWriter(out)
    changed = 0
    for name in list_tensor_shapes(read_config(text.directory / "config.json")):
        weight = text.read(name)
        if name in adapter.factors:
            a_RI, b_OR = (adapter.tensors.read(each) for each in adapter.factors[name])
            merged = check_sane(merge(weight, a_RI, b_OR, adapter.scaling), name)
            changed += not torch.equal(merged, weight)
            weight = merged
        writer.add(name, weight)
    writer.finish()
    if changed == 0:
        raise _make_error(ADAPTER, "merged in, it changes no weight: it was not trained")
    count = len(adapter.factors)
    say(
        f"merged {count} of {count} modules, scaling {adapter.scaling:g}; {changed} weights changed"
    )


def _make_error(on: str, why: str) -> StageError:
    return StageError(
        "the adapter cannot be merged",
        on=on,
        why=why,
        then="build `adapter` again from this checkpoint, with plain LoRA",
    )
