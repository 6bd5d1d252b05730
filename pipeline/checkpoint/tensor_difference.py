"""Two tensors of one encoding, each a part of a file -> how many values differ, and how far.

Values are compared by their bits, so that nothing that makes the files differ goes unsaid: NaN and
zeros of other sign are counted apart. They are read in parts; a tensor may be larger than memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# A quantized chunk becomes up to fifty times as large as float64.
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Extent:
    """Where a tensor lies in a file."""

    path: Path
    offset: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How bytes hold values: `decode` turns whole blocks, uint8 [n, block_bytes], into them.

    Other bytes of a value become other bits, unless several values share a block. `noun` says
    what is counted.
    """

    block_bytes: int
    decode: Callable[[Any], Any]
    noun: str = "values"


def _make_plain(name: str) -> Encoding:
    dtype = np.dtype(name)
    return Encoding(block_bytes=dtype.itemsize, decode=lambda blocks: blocks.view(dtype))


def _make_e4m3() -> Any:
    """Return the 256 values of F8_E4M3: no infinity, one NaN of each sign (arXiv 2209.05433)."""
    code = np.arange(128)
    exponent, mantissa = code >> 3, code & 7
    positive = np.where(exponent > 0, 8 + mantissa, mantissa) * 2.0 ** (
        np.maximum(exponent, 1) - 10
    )
    positive[127] = np.nan
    return np.concatenate([positive, np.copysign(positive, -1)]).astype(np.float32)


_E4M3 = _make_e4m3()

# by the names of safetensors, which are those of GGUF where that has the type
ENCODINGS = {
    "F64": _make_plain("<f8"),
    "F32": _make_plain("<f4"),
    "F16": _make_plain("<f2"),
    # The upper half of an F32, and that of an F16.
    "BF16": Encoding(
        block_bytes=2, decode=lambda blocks: (blocks.view("<u2").astype("<u4") << 16).view("<f4")
    ),
    "F8_E5M2": Encoding(
        block_bytes=1, decode=lambda blocks: (blocks.astype("<u2") << 8).view("<f2")
    ),
    "F8_E4M3": Encoding(block_bytes=1, decode=lambda blocks: _E4M3[blocks]),
    "I64": _make_plain("<i8"),
    "I32": _make_plain("<i4"),
    "I16": _make_plain("<i2"),
    "I8": _make_plain("i1"),
    "U64": _make_plain("<u8"),
    "U32": _make_plain("<u4"),
    "U16": _make_plain("<u2"),
    "U8": _make_plain("u1"),
    "BOOL": _make_plain("u1"),
}


@dataclass(kw_only=True)
class _Tally:
    differing: int = 0
    greatest: float | int | None = None
    one_nan: int = 0
    two_nan: int = 0
    zeros: int = 0


def find_tensor_change(
    sealed: Extent, rebuilt: Extent, encoding: Encoding, *, count: int
) -> str | None:
    """Return how the values of two tensors of equal size differ, None when no byte does.

    `count` is the number of values. Differences are taken in float64; those of integers are exact.
    """
    tally, equal = _Tally(), True
    for old, new in _read_differing(sealed, rebuilt, encoding.block_bytes):
        equal = False
        # A damaged scale dequantizes to infinities and NaN, which are counted below.
        with np.errstate(all="ignore"):
            _count(tally, encoding.decode(old).ravel(), encoding.decode(new).ravel())
    if equal:
        return None
    if not tally.differing:
        return f"its bytes differ, and none of its {count:,} {encoding.noun}"
    return _make_text(tally, f"{count:,} {encoding.noun}")


def _read_differing(sealed: Extent, rebuilt: Extent, block_bytes: int) -> Iterator[tuple[Any, Any]]:
    """Yield the blocks that differ, uint8 [n, block_bytes] of either side, a chunk at a time."""
    chunk_bytes = _CHUNK_BYTES - _CHUNK_BYTES % block_bytes
    with sealed.path.open("rb") as old_file, rebuilt.path.open("rb") as new_file:
        old_file.seek(sealed.offset)
        new_file.seek(rebuilt.offset)
        for begin in range(0, sealed.size_bytes, chunk_bytes):
            size_bytes = min(chunk_bytes, sealed.size_bytes - begin)
            old, new = old_file.read(size_bytes), new_file.read(size_bytes)
            if old != new:
                olds = np.frombuffer(old, np.uint8).reshape(-1, block_bytes)
                news = np.frombuffer(new, np.uint8).reshape(-1, block_bytes)
                differs = (olds != news).any(axis=1)
                yield olds[differs], news[differs]


def _count(tally: _Tally, old: Any, new: Any) -> None:
    """Add the values that differ to the tally."""
    bits = f"u{old.itemsize}"
    differs = old.view(bits) != new.view(bits)
    tally.differing += int(differs.sum())
    old, new = old[differs], new[differs]
    if old.dtype.kind == "f":
        nans = np.isnan(old).astype(int) + np.isnan(new)
        tally.one_nan += int((nans == 1).sum())
        tally.two_nan += int((nans == 2).sum())
        old, new = old[nans == 0].astype(np.float64), new[nans == 0].astype(np.float64)
        tally.zeros += int((old == new).sum())
        distances = np.abs(old - new)
    else:
        # Modulo 2**64 the difference is exact, whatever the signs.
        distances = np.maximum(old, new).astype("u8") - np.minimum(old, new).astype("u8")
    if distances.size:
        tally.greatest = max(tally.greatest or 0, distances.max().item())


def _make_text(tally: _Tally, total: str) -> str:
    text = f"{tally.differing:,} of {total} differ"
    if tally.greatest is not None:
        exact = isinstance(tally.greatest, int)
        text += f", max abs difference {tally.greatest:{',' if exact else '.6g'}}"
    notes = {
        "NaN on one side": tally.one_nan,
        "NaN of other bits": tally.two_nan,
        "zero of other sign": tally.zeros,
    }
    return "; ".join([text, *(f"{number:,} {note}" for note, number in notes.items() if number)])
