"""Two safetensors files -> what differs: metadata, then which tensors there are, then values."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from pipeline.checkpoint.json_difference import ONLY_REBUILT, ONLY_SEALED, find_value_changes
from pipeline.checkpoint.safetensors_header import TensorEntry, read_header
from pipeline.checkpoint.tensor_difference import ENCODINGS, Extent, find_tensor_change

_METADATA = "__metadata__"


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a safetensors file declares; the tensors lie from `data_offset` on."""

    metadata: Any
    tensors: Mapping[str, TensorEntry]
    data_offset: int


def read_safetensors(path: Path) -> Header:
    """Return what the file declares. Raises StageError when it holds something else."""
    entries = read_header(path)
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        metadata = json.loads(file.read(length)).get(_METADATA, {})
    tensors = {entry.name: entry for entry in entries}
    return Header(metadata=metadata, tensors=tensors, data_offset=8 + length)


def find_safetensors_changes(sealed: Header, rebuilt: Header) -> Iterator[str]:
    """Yield what differs between two files."""
    yield from find_value_changes(_METADATA, sealed.metadata, rebuilt.metadata)
    for name, old in sealed.tensors.items():
        if (new := rebuilt.tensors.get(name)) is None:
            yield f"tensor {name} {_format(old)}: {ONLY_SEALED}"
        elif (old.dtype, old.shape) != (new.dtype, new.shape):
            yield f"tensor {name}: {_format(old)} -> {_format(new)}"
    for name, new in rebuilt.tensors.items():
        if name not in sealed.tensors:
            yield f"tensor {name} {_format(new)}: {ONLY_REBUILT}"
    for name, old in sealed.tensors.items():
        new = rebuilt.tensors.get(name)
        if new is not None and (old.dtype, old.shape) == (new.dtype, new.shape):
            change = find_tensor_change(
                _find_extent(sealed, old),
                _find_extent(rebuilt, new),
                ENCODINGS[old.dtype],
                count=prod(old.shape),
            )
            if change:
                yield f"tensor {name} {_format(old)}: {change}"


def _find_extent(header: Header, entry: TensorEntry) -> Extent:
    offset = header.data_offset + entry.begin
    return Extent(path=entry.shard, offset=offset, size_bytes=entry.size_bytes)


def _format(entry: TensorEntry) -> str:
    return f"{entry.dtype} {list(entry.shape)}"
