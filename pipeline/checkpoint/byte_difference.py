"""Two files of any kind -> what differs: the first line of texts, the number of bytes of others."""

import json
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np

from pipeline.checkpoint.json_difference import ONLY_REBUILT, ONLY_SEALED, make_change, shorten

# What git calls binary: a zero byte near the beginning.
_PROBE_BYTES = 8000
_CHUNK_BYTES = 1 << 24


def find_byte_changes(sealed: Path, rebuilt: Path) -> Iterator[str]:
    """Yield what differs between two files: one line, none when no byte does."""
    if _is_text(sealed) and _is_text(rebuilt):
        yield from _find_line_change(sealed, rebuilt)
    else:
        yield from _find_binary_change(sealed, rebuilt)


def _is_text(path: Path) -> bool:
    with path.open("rb") as file:
        return b"\0" not in file.read(_PROBE_BYTES)


def _find_line_change(sealed: Path, rebuilt: Path) -> Iterator[str]:
    with sealed.open("rb") as old_lines, rebuilt.open("rb") as new_lines:
        for number, (old, new) in enumerate(zip_longest(old_lines, new_lines), start=1):
            if old != new:
                yield f"line {number}: {_make_line_change(old, new)}"
                return


def _make_line_change(old: bytes | None, new: bytes | None) -> str:
    if old is None or new is None:
        side = ONLY_REBUILT if old is None else ONLY_SEALED
        return f"{side}: {shorten(_quote(old or new or b''))}"
    if old.endswith(b"\n") and new.endswith(b"\n"):
        old, new = old[:-1], new[:-1]
    return make_change(_quote(old), _quote(new))


def _quote(line: bytes) -> str:
    return json.dumps(line.decode("utf-8", "backslashreplace"), ensure_ascii=False)


def _find_binary_change(sealed: Path, rebuilt: Path) -> Iterator[str]:
    sizes = sealed.stat().st_size, rebuilt.stat().st_size
    common = min(sizes)
    count, first = _count_differing(sealed, rebuilt)
    size = f"{sizes[0]:,} bytes"
    if sizes[0] != sizes[1]:
        size += f" -> {sizes[1]:,} bytes"
        common_bytes = f"the first {common:,} bytes"
        if not count:
            yield f"{size}; {common_bytes} are equal"
            return
        size += f"; of {common_bytes}"
    if count:
        yield f"{size}, {count:,} differ, the first at offset {first:,}"


def _count_differing(sealed: Path, rebuilt: Path) -> tuple[int, int]:
    """Return how many bytes differ as far as both files go, and the offset of the first."""
    count, first, offset = 0, -1, 0
    with sealed.open("rb") as old_file, rebuilt.open("rb") as new_file:
        while (old := old_file.read(_CHUNK_BYTES)) and (new := new_file.read(_CHUNK_BYTES)):
            if old != new:
                both = min(len(old), len(new))
                differs = np.frombuffer(old, np.uint8, both) != np.frombuffer(new, np.uint8, both)
                if first < 0 and differs.any():
                    first = offset + int(differs.argmax())
                count += int(differs.sum())
            offset += len(old)
    return count, first
