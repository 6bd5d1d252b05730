"""Names and shapes of BF16 tensors -> the files that hold them: which shard, how large.

Standard library alone: the stages write by it, and a plan knows sizes from it.
"""

import json
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from pipeline.checkpoint.safetensors_header import DTYPE_BYTES, make_header

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5_000_000_000

Shapes = Mapping[str, tuple[int, ...]]


def share_out(shapes: Shapes, shard_bytes: int) -> list[dict[str, tuple[int, ...]]]:
    """Return the tensors of each shard, filled one after the other."""
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    filled_bytes = 0
    for name, shape in shapes.items():
        size_bytes = _find_size(shape)
        if shards[-1] and filled_bytes + size_bytes > shard_bytes:
            shards.append({})
            filled_bytes = 0
        shards[-1][name] = shape
        filled_bytes += size_bytes
    return shards


def name_shards(count: int) -> list[str]:
    """Return the name of each of several shards."""
    return [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]


def make_index(shards: Sequence[Shapes]) -> dict[str, Any]:
    """Return the index of several shards."""
    names = name_shards(len(shards))
    return {
        "metadata": {"total_size": sum(map(_sum_sizes, shards))},
        "weight_map": {
            name: file for file, part in zip(names, shards, strict=True) for name in part
        },
    }


def count_checkpoint_bytes(shapes: Shapes) -> int:
    """Return the bytes of the shards, headers and all, and of their index."""
    shards = share_out(shapes, SHARD_BYTES)
    index_bytes = len(dump_json(make_index(shards))) if len(shards) > 1 else 0
    return index_bytes + sum(
        len(make_header({name: ("BF16", shape) for name, shape in part.items()})) + _sum_sizes(part)
        for part in shards
    )


def dump_json(value: Mapping[str, Any]) -> bytes:
    """Return JSON in one canonical form: sorted, indented by two, one newline at the end."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False)
    return (text + "\n").encode("utf-8")


def _sum_sizes(shapes: Shapes) -> int:
    return sum(map(_find_size, shapes.values()))


def _find_size(shape: tuple[int, ...]) -> int:
    return prod(shape) * DTYPE_BYTES["BF16"]
