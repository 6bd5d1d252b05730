"""Two builds of one artifact -> what differs between their files, in the terms of each format.

`python -m pipeline.checkpoint.difference SEALED REBUILT FILE...`, in the image convert. In: two
directories, and the paths below them of files that differ or lie on one side only. Out: a line on
stdout for each difference, after the file's name, at most 20 a file. A file that is not what its
name says is compared as text or as bytes. Memory stays small, however large the tensors are.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from pipeline.checkpoint.byte_difference import find_byte_changes
from pipeline.checkpoint.gguf_difference import find_gguf_changes, read_gguf
from pipeline.checkpoint.json_difference import (
    ONLY_REBUILT,
    ONLY_SEALED,
    find_json_changes,
    find_line_changes,
    read_json,
    read_lines,
)
from pipeline.checkpoint.safetensors_difference import find_safetensors_changes, read_safetensors
from pipeline.errors import StageError

_LINES_MAX = 20


@dataclass(frozen=True, kw_only=True)
class _Format:
    """`read` a file, raising StageError for one of another format; `find` what differs between two.

    `equal` says what it is when bytes differ and nothing was found.
    """

    name: str
    read: Callable[[Path], Any]
    find: Callable[[Any, Any], Iterator[str]]
    equal: str


_FORMATS = {
    ".safetensors": _Format(
        name="safetensors file",
        read=read_safetensors,
        find=find_safetensors_changes,
        equal="tensors and metadata are equal; only the header's layout (order, padding) differs",
    ),
    ".gguf": _Format(
        name="GGUF",
        read=read_gguf,
        find=find_gguf_changes,
        equal="keys and tensors are equal; only the padding's bytes differ",
    ),
    ".json": _Format(
        name="JSON",
        read=read_json,
        find=find_json_changes,
        equal="the values are equal; only whitespace or notation differs",
    ),
    ".jsonl": _Format(
        name="JSON lines",
        read=read_lines,
        find=find_line_changes,
        equal="the values are equal; only the order of keys, whitespace or notation differs",
    ),
}


def describe(sealed: Path, rebuilt: Path) -> list[str]:
    """Return what differs between two files: a line each, at most 20, and how many more there are.

    Raises StageError when neither exists or one cannot be read.
    """
    try:
        if not rebuilt.exists() and sealed.exists():
            return [ONLY_SEALED]
        if not sealed.exists() and rebuilt.exists():
            return [ONLY_REBUILT]
        return [_make_printable(line) for line in _cut(_find_changes(sealed, rebuilt))]
    except RecursionError:
        return [_make_printable(line) for line in find_byte_changes(sealed, rebuilt)]
    except OSError as error:
        raise StageError(
            "a file cannot be read",
            on=str(error.filename or sealed),
            why=str(error.strerror),
            then="mend its path or permissions; then compare again",
        ) from error


def _find_changes(sealed: Path, rebuilt: Path) -> Iterator[str]:
    form = _FORMATS.get(sealed.suffix)
    if form is None:
        yield from find_byte_changes(sealed, rebuilt)
        return
    values, faults = [], []
    for side, path in (("sealed artifact", sealed), ("rebuilt one", rebuilt)):
        try:
            values.append(form.read(path))
        except StageError as error:
            faults.append(f"no sound {form.name} in the {side}: {error.what} ({error.why})")
    if faults:
        yield from chain(faults, find_byte_changes(sealed, rebuilt))
        return
    found = False
    for change in form.find(*values):
        found = True
        yield change
    if not found and any(find_byte_changes(sealed, rebuilt)):
        yield form.equal


def _cut(lines: Iterable[str]) -> list[str]:
    remaining = iter(lines)
    shown = list(islice(remaining, _LINES_MAX)) or ["no byte differs"]
    more = sum(1 for _ in remaining)
    return [*shown, f"... and {more:,} more"] if more else shown


def _make_printable(text: str) -> str:
    """Return the text on one line of a terminal: names in a file may hold anything."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )


def main(argv: list[str]) -> int:
    """Write what differs to stdout; return 0, or an error's exit code when a file is unreadable."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.checkpoint.difference")
    parser.add_argument("sealed", type=Path, help="directory of the sealed artifact")
    parser.add_argument("rebuilt", type=Path, help="directory of the rebuilt one")
    parser.add_argument("files", nargs="*", help="paths below both")
    arguments = parser.parse_args(argv)
    codes = [_write_changes(arguments.sealed, arguments.rebuilt, name) for name in arguments.files]
    return max(codes, default=0)


def _write_changes(sealed: Path, rebuilt: Path, name: str) -> int:
    try:
        lines = describe(sealed / name, rebuilt / name)
    except StageError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.writelines(f"{_make_printable(name)}: {line}\n" for line in lines)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
