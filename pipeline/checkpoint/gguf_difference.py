"""Two GGUF files -> what differs: keys, then which tensors there are, then values, then layout.

Values of a quantization type are compared as gguf's own package dequantizes them. Shapes read as in
the checkpoint, outermost dimension first.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.checkpoint.json_difference import (
    ONLY_REBUILT,
    ONLY_SEALED,
    find_value_changes,
    make_change,
    make_text,
    shorten,
)
from pipeline.checkpoint.llama_source import import_gguf
from pipeline.checkpoint.tensor_difference import ENCODINGS, Encoding, Extent, find_tensor_change
from pipeline.errors import StageError

# They follow from what else there is.
_COUNTS = ("GGUF.tensor_count", "GGUF.kv_count")


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor as the file declares it."""

    type: str
    shape: tuple[int, ...]
    extent: Extent

    def __str__(self) -> str:
        return f"{self.type} {list(self.shape)}"


@dataclass(frozen=True, kw_only=True)
class Gguf:
    """What a GGUF declares, in its own order; a key's value comes with the name of its type."""

    keys: Mapping[str, tuple[str, Any]]
    tensors: Mapping[str, Tensor]


def read_gguf(path: Path) -> Gguf:
    """Return what the file declares. Raises StageError when it is no whole GGUF of this machine's
    byte order."""
    try:
        # A sum that wraps is an offset beyond every file.
        with np.errstate(over="raise"):
            reader = _make_reader_class()(path)
        if reader.byte_order != "I":
            raise ValueError("its byte order is not this machine's")
        keys = {
            name: (" of ".join(each.name for each in field.types), field.contents())
            for name, field in reader.fields.items()
            if name not in _COUNTS
        }
        tensors = {each.name: _make_tensor(each, path) for each in reader.tensors}
        return Gguf(keys=keys, tensors=tensors)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise StageError(
            "the file cannot be followed", on=path.name, why=str(error), then="make the file again"
        ) from None


def find_gguf_changes(sealed: Gguf, rebuilt: Gguf) -> Iterator[str]:
    """Yield what differs between two files."""
    equal = True
    for change in _find_content_changes(sealed, rebuilt):
        equal = False
        yield change
    if equal:
        yield from _find_layout_changes(sealed, rebuilt)


def _find_content_changes(sealed: Gguf, rebuilt: Gguf) -> Iterator[str]:
    yield from _find_key_changes(sealed.keys, rebuilt.keys)
    for name, old in sealed.tensors.items():
        if (new := rebuilt.tensors.get(name)) is None:
            yield f"tensor {name} {old}: {ONLY_SEALED}"
        elif str(old) != str(new):
            yield f"tensor {name}: {old} -> {new}"
    for name, new in rebuilt.tensors.items():
        if name not in sealed.tensors:
            yield f"tensor {name} {new}: {ONLY_REBUILT}"
    for name, old in sealed.tensors.items():
        found = rebuilt.tensors.get(name)
        if found is not None and str(old) == str(found):
            encoding, count = _find_encoding(old.type), prod(old.shape)
            if encoding.noun == "bytes":
                count = old.extent.size_bytes
            change = find_tensor_change(old.extent, found.extent, encoding, count=count)
            if change:
                yield f"tensor {name} {old}: {change}"


def _find_key_changes(
    sealed: Mapping[str, tuple[str, Any]], rebuilt: Mapping[str, tuple[str, Any]]
) -> Iterator[str]:
    for name, (old_type, old) in sealed.items():
        if name not in rebuilt:
            yield f"key {name}: {ONLY_SEALED}: {shorten(make_text(old))}"
            continue
        new_type, new = rebuilt[name]
        if old_type == new_type:
            yield from find_value_changes(f"key {name}", old, new)
        else:
            typed = f"{old_type} {make_text(old)}", f"{new_type} {make_text(new)}"
            yield f"key {name}: {make_change(*typed)}"
    for name, (_, new) in rebuilt.items():
        if name not in sealed:
            yield f"key {name}: {ONLY_REBUILT}: {shorten(make_text(new))}"


def _find_layout_changes(sealed: Gguf, rebuilt: Gguf) -> Iterator[str]:
    found = []
    if list(sealed.keys) != list(rebuilt.keys):
        found.append("the order of keys")
    if list(sealed.tensors) != list(rebuilt.tensors):
        found.append("the order of tensors")
    elif _list_offsets(sealed) != _list_offsets(rebuilt):
        found.append("where the tensors lie (alignment or padding)")
    if found:
        yield f"keys and tensors are equal; what differs is {' and '.join(found)}"


def _list_offsets(gguf: Gguf) -> list[int]:
    return [tensor.extent.offset for tensor in gguf.tensors.values()]


def _make_tensor(tensor: Any, path: Path) -> Tensor:
    return Tensor(
        type=tensor.tensor_type.name,
        shape=tuple(int(each) for each in reversed(tensor.shape)),
        extent=Extent(path=path, offset=tensor.data_offset, size_bytes=tensor.n_bytes),
    )


@cache
def _find_encoding(type_name: str) -> Encoding:
    """Return how a GGUF type holds values; bytes stay bytes where gguf cannot dequantize them."""
    if type_name in ENCODINGS:
        return ENCODINGS[type_name]
    gguf = import_gguf()
    quantization = gguf.GGMLQuantizationType[type_name]
    block_bytes = gguf.GGML_QUANT_SIZES[quantization][1]

    def decode(blocks: Any) -> Any:
        # As one row: row by row it would be a hundred times slower.
        return gguf.quants.dequantize(blocks.ravel(), quantization)

    try:
        decode(np.zeros((1, block_bytes), np.uint8))
    except NotImplementedError:
        return Encoding(block_bytes=1, decode=lambda blocks: blocks, noun="bytes")
    return Encoding(block_bytes=block_bytes, decode=decode, noun="dequantized values")


@cache
def _make_reader_class() -> type:
    """Return gguf's reader, made to end where the file does.

    The original reads on past the end: a wrong length of an array keeps it busy for hours.
    """

    original: Any = import_gguf().GGUFReader

    class Reader(original):
        def _get(self, offset: int, dtype: Any, count: int = 1, **order: Any) -> Any:
            due = int(offset) + np.dtype(dtype).itemsize * int(count)
            if due > self.data.nbytes:
                raise ValueError(f"it ends at byte {self.data.nbytes:,}, and {due:,} are due")
            return super()._get(offset, dtype, count, **order)

    return Reader
