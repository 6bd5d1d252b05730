"""The header of a safetensors file -> what the file must hold, checked against its size.

The safetensors library finds the same faults, but names neither file nor tensor. Format: eight
bytes of little-endian length, that many bytes of JSON, then the tensors without gaps
(https://github.com/huggingface/safetensors#format).
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from pipeline.errors import StageError

DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip

_METADATA = "__metadata__"

# The library's own bound; a larger length is a file of another kind.
_HEADER_BYTES_MAX = 100_000_000


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """One tensor as its shard's header declares it; `end` counts bytes after the header."""

    name: str
    shard: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def size_bytes(self) -> int:
        return self.end - self.begin


def read_header(shard: Path) -> tuple[TensorEntry, ...]:
    """Return the shard's tensors by their place in the file.

    Raises StageError naming the file, and the tensor where there is one, when the file is
    missing, unreadable, truncated, longer than declared, or holds a name twice.
    """
    if not shard.is_file():
        refuse_shard("a shard is missing", shard, "the download stopped early or a file was moved")
    size = shard.stat().st_size
    with shard.open("rb") as file:
        header_bytes, header = _read_json(file, shard, size)
    entries = [
        _parse_entry(name, value, shard) for name, value in header.items() if name != _METADATA
    ]
    entries.sort(key=lambda entry: (entry.begin, entry.end))
    _check_layout(entries, shard, size - 8 - header_bytes)
    return tuple(entries)


def make_header(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> bytes:
    """Return the header of a file of tensors of one dtype, (dtype, shape) by name.

    They lie in the order of their names, as the safetensors library writes them.
    """
    header: dict[str, Any] = {_METADATA: {"format": "pt"}}
    begin = 0
    for name, (dtype, shape) in sorted(tensors.items()):
        end = begin + prod(shape) * DTYPE_BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def refuse_shard(what: str, shard: Path, why: str, *, tensor: str | None = None) -> NoReturn:
    """Raise the StageError of a bad shard."""
    on = shard.name if tensor is None else f"{shard.name}, tensor {tensor}"
    raise StageError(what, on=on, why=why, then=f"copy or download {shard.name} again")


def _read_json(file: BinaryIO, shard: Path, size: int) -> tuple[int, dict[str, Any]]:
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > _HEADER_BYTES_MAX:
        refuse_shard("a shard's header is unreadable", shard, "it is no safetensors file")
    if length > size - 8:
        refuse_shard("a shard is truncated", shard, f"it ends at byte {size}, inside its header")
    text = file.read(length)
    try:
        # The format's own rule; JSON would allow white space, and other values.
        sound = text.startswith(b"{")
        header, repeated = parse_object(text) if sound else ({}, "")
    except (ValueError, RecursionError):
        sound = False
    if not sound:
        why = "it is no JSON object: the file is damaged"
        refuse_shard("a shard's header is unreadable", shard, why)
    if repeated:
        refuse_shard("a shard declares something twice", shard, "it is damaged", tensor=repeated)
    metadata = header.get(_METADATA, {})
    if not isinstance(metadata, dict) or not all(
        isinstance(each, str) for each in metadata.values()
    ):
        why = f"its {_METADATA} is no map of texts: the file is damaged"
        refuse_shard("a shard's header is unreadable", shard, why)
    return length, header


def parse_object(text: bytes) -> tuple[dict[str, Any], str]:
    """Return a JSON object, and a key that it or an object in it has twice ("" when there is none).

    JSON parsers keep the last of two equal keys and say nothing. Raises ValueError for what is no
    object, RecursionError for what is nested too deeply.
    """
    repeated: list[str] = []

    def make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        counts = Counter(key for key, _ in pairs)
        repeated.extend(key for key, count in counts.items() if count > 1)
        return dict(pairs)

    found = json.loads(text, object_pairs_hook=make_object)
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found, repeated[0] if repeated else ""


def _parse_entry(name: str, value: Any, shard: Path) -> TensorEntry:
    """Return the tensor's entry; its dtype, shape and offsets must agree with one another."""
    try:
        dtype, shape = value["dtype"], tuple(value["shape"])
        begin, end = value["data_offsets"]
        # A bool is an int to Python, and what does not fit 63 bits would wrap round in torch.
        sound = all(type(each) is int and 0 <= each < 1 << 63 for each in (*shape, begin, end))
        sound = sound and end - begin == prod(shape) * DTYPE_BYTES[dtype]
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        why = f"dtype, shape and offsets disagree or are unknown: {value}"[:300]
        refuse_shard("a shard declares a tensor wrongly", shard, why, tensor=name)
    return TensorEntry(name=name, shard=shard, dtype=dtype, shape=shape, begin=begin, end=end)


def _check_layout(entries: list[TensorEntry], shard: Path, data_bytes: int) -> None:
    end = 0
    for entry in entries:
        if entry.begin != end:
            why = f"it begins at byte {entry.begin}, where {end} is due"
            refuse_shard("a shard's tensors overlap or leave gaps", shard, why, tensor=entry.name)
        end = entry.end
    if end > data_bytes:
        cut = next(entry for entry in entries if entry.end > data_bytes)
        why = f"its header declares {end:,} bytes of tensors, and {data_bytes:,} are there"
        refuse_shard("a shard is truncated", shard, why, tensor=cut.name)
    if end < data_bytes:
        why = f"its header declares {end:,} bytes of tensors, and {data_bytes:,} are there"
        refuse_shard("a shard is longer than its header says", shard, why)
