"""A checkpoint of a family that is not in the table (`text_tensors.FAMILIES`), taken as it is.

Without a table nothing can be left out on purpose, renamed or checked against the config: each
tensor keeps its name, its shape is what the header says, and what the GGUF makes of it is for
llama.cpp's converter to know. So only plain text models in 16 or 32 bits are taken; all become
BF16, as those of the table do.
"""

import re
from collections.abc import Mapping
from math import prod
from typing import Any

from pipeline.checkpoint.names import NamePlan
from pipeline.checkpoint.quantization import KEYS
from pipeline.checkpoint.safetensors_header import TensorEntry
from pipeline.checkpoint.text_tensors import FAMILIES
from pipeline.errors import StageError
from pipeline.log import say

_DTYPES = ("BF16", "F16", "F32")

# What a config has that is more than a plain text model, or less than 16 bits wide.
_NOT_PLAIN = ("text_config", "vision_config", "audio_config", *KEYS)


def is_listed(config: Mapping[str, Any]) -> bool:
    """Whether the table knows the family of a published config, or of a text model's."""
    text = config.get("text_config") or config
    return str(text.get("model_type")) in FAMILIES


def check_other(config: Mapping[str, Any]) -> None:
    """Raise StageError unless a family beside the table can be taken as it is."""
    text = config.get("text_config") or config
    found = [key for key in _NOT_PLAIN if config.get(key) is not None]
    match config.get("architectures"):
        case [str()]:
            pass
        case _:
            found.append("no single name in architectures")
    if found:
        raise StageError(
            "the model's family is not supported",
            on=f"config.json, model_type {text.get('model_type')}",
            why=f"it is none of {', '.join(FAMILIES)}; others are taken as plain text models in "
            f"16 or 32 bits alone, and this one has {' and '.join(found)}",
            then="use a base of one of these families, or a text-only checkpoint in BF16",
        )


def plan_other(config: Mapping[str, Any], entries: Mapping[str, TensorEntry]) -> NamePlan:
    """Return a plan by which every tensor stays what it is, layer by layer.

    Raises StageError when the family cannot be taken as it is, or a tensor is no plain weight.
    """
    check_other(config)
    for entry in entries.values():
        if entry.dtype not in _DTYPES or not entry.shape or not prod(entry.shape):
            raise StageError(
                "the checkpoint holds a tensor that is not known",
                on=f"{entry.shard.name}, tensor {entry.name}",
                why=f"it is {entry.dtype} {entry.shape}; of a family that is not in the table only "
                f"weights in {', '.join(_DTYPES)} are taken",
                then="use the model's checkpoint in BF16",
            )
    # One expert after the other: the converter holds those of a layer until it has them all.
    names = sorted(entries, key=_split_numbers)
    return NamePlan(weights={name: name for name in names}, scales={}, dropped=())


def say_taken(config: Mapping[str, Any], entries: Mapping[str, TensorEntry]) -> None:
    """Say that nothing is known of the family, and what that means."""
    say(
        f"note: family {config.get('model_type')}: not in the table; its tensors are taken as they "
        "are and llama.cpp's own steps write the GGUF"
    )
    rounded = sum(entry.dtype != "BF16" for entry in entries.values())
    if rounded:
        say(f"note: {rounded} of {len(entries)} tensors are F16 or F32, and are rounded to BF16")


def _split_numbers(name: str) -> list[str | int]:
    """Return what names sort by when layer 10 is to come after layer 9."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]
