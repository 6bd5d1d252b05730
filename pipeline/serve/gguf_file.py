"""What a GGUF says of itself, read without loading it. Standard library only.

The layout is that of ggml's docs/gguf.md, version 3, little endian: magic, version, counts,
metadata by key, one record for each tensor, padding, data. A file is refused before a server starts
on it when it is none, of another version, or ends before its last tensor does.
"""

import mmap
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.gguf_types import BLOCKS

_MAGIC = b"GGUF"
_VERSION = 3
_DEFAULT_ALIGNMENT = 32

# type number -> struct format of one value
_SCALARS = {
    **{0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?"},
    **{10: "<Q", 11: "<q", 12: "<d"},
}
_STRING, _ARRAY = 8, 9
# Arrays of more values, vocabularies, are skipped: only their length is kept.
_KEPT_VALUES = 64

# ggml's numbers of the tensor types that a file of ours may hold.
_TENSOR_TYPES = {
    **{0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K"},
    **{11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 16: "IQ2_XXS", 17: "IQ2_XS"},
    **{18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS"},
    **{29: "IQ1_M", 30: "BF16"},
}


@dataclass(frozen=True, kw_only=True)
class GgufFile:
    """A file's metadata; an array of more than 64 values is its length alone.

    `tensor_bytes`: by tensor. Layers' are named blk.N, the embeddings token_embd.weight.
    """

    path: Path
    metadata: Mapping[str, Any]
    size_bytes: int
    tensor_bytes: Mapping[str, int]

    @property
    def architecture(self) -> str:
        """The family, "" where the file names none."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def chat_template(self) -> str:
        """The Jinja source of the chat template, "" without one."""
        return str(self.metadata.get("tokenizer.chat_template", ""))

    @property
    def name(self) -> str:
        """The model's own name, "" where it has none."""
        return str(self.metadata.get("general.name", ""))

    @property
    def vocabulary(self) -> int:
        """The number of its tokens."""
        tokens = self.metadata.get("tokenizer.ggml.tokens", 0)
        return len(tokens) if isinstance(tokens, list) else int(tokens)

    def read_number(self, name: str) -> int | None:
        """Return a number of the architecture, by its key without the architecture's name; of one
        for each layer the largest."""
        value = self.metadata.get(f"{self.architecture}.{name}")
        if isinstance(value, list):
            value = max(value, default=None)
        return value if isinstance(value, int) else None


def read_gguf(path: Path) -> GgufFile:
    """Return what the file says. Raises UsageError when no server of ours could load it."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, memoryview(data).toreadonly())
    except (OSError, ValueError, struct.error, UnicodeDecodeError) as error:
        raise UsageError(
            "the file is no GGUF that can be served",
            on=str(path),
            why=str(error),
            then="make gguf (a sealed file), or fetch the file again",
        ) from None


class _Cursor:
    """Reads values one after the other."""

    def __init__(self, data: memoryview) -> None:
        self.data = data
        self.place = 0

    def take(self, count: int) -> memoryview:
        """Return the next bytes."""
        if count < 0 or self.place + count > len(self.data):
            raise ValueError(f"it ends within its header, at byte {len(self.data):,}")
        self.place += count
        return self.data[self.place - count : self.place]

    def read(self, form: str) -> Any:
        """Return the next scalar."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def read_string(self) -> str:
        """Return the next string."""
        return str(self.take(self.read("<Q")), "utf-8")

    def read_value(self, kind: int, depth: int = 0) -> Any:
        """Return the next value of a type number."""
        if kind in _SCALARS:
            return self.read(_SCALARS[kind])
        if kind == _STRING:
            return self.read_string()
        if kind != _ARRAY or depth:
            raise ValueError(f"its metadata has a value of the unknown type {kind}")
        return self._read_array()

    def _read_array(self) -> Any:
        kind, count = self.read("<I"), self.read("<Q")
        if count <= _KEPT_VALUES:
            return [self.read_value(kind, depth=1) for _ in range(count)]
        if kind in _SCALARS:
            self.take(count * struct.calcsize(_SCALARS[kind]))
        elif kind == _STRING:
            self._skip_strings(count)
        else:
            raise ValueError(f"its metadata has an array of the unknown type {kind}")
        return count

    def _skip_strings(self, count: int) -> None:
        # A vocabulary has hundreds of thousands.
        unpack, place, data = struct.Struct("<Q").unpack_from, self.place, self.data
        while count and place <= len(data) - 8:
            place += 8 + unpack(data, place)[0]
            count -= 1
        self.take(place - self.place + 8 * count)


def _parse(path: Path, data: memoryview) -> GgufFile:
    with data:
        cursor = _Cursor(data)
        if bytes(data[:4]) != _MAGIC:
            raise ValueError("it does not begin with GGUF")
        cursor.take(4)
        version = cursor.read("<I")
        if version != _VERSION:
            raise ValueError(f"it is of version {version}; this llama.cpp writes {_VERSION}")
        tensors, keys = cursor.read("<Q"), cursor.read("<Q")
        metadata: dict[str, Any] = {}
        for _ in range(keys):
            key = cursor.read_string()
            metadata[key] = cursor.read_value(cursor.read("<I"))
        sizes, end = _measure_tensors(cursor, tensors)
        alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0:
            raise ValueError(f"its alignment is {alignment!r}")
        expected = -(-cursor.place // alignment) * alignment + end
        if tensors and len(data) < expected:
            raise ValueError(f"it has {len(data):,} of {expected:,} bytes: it was cut off")
        return GgufFile(
            path=path,
            metadata=metadata,
            size_bytes=len(data),
            tensor_bytes=sizes,
        )


def _measure_tensors(cursor: _Cursor, tensors: int) -> tuple[dict[str, int], int]:
    """Return the bytes of each tensor, and where the last one ends, counted from the first one's
    beginning."""
    sizes: dict[str, int] = {}
    end = 0
    for _ in range(tensors):
        name = cursor.read_string()
        shape: Sequence[int] = [cursor.read("<Q") for _ in range(cursor.read("<I"))]
        number, offset = cursor.read("<I"), cursor.read("<Q")
        if number not in _TENSOR_TYPES:
            raise ValueError(f"tensor {name} is of the unknown type {number}")
        elements, size = BLOCKS[_TENSOR_TYPES[number]]
        sizes[name] = prod(shape) // elements * size
        end = max(end, offset + sizes[name])
    return sizes, end
