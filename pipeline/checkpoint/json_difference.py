"""Two JSON values, or two files of JSON lines -> what differs, a line each, by path (`$.a.b[3]`).

Numbers differ when their texts would (1 and 1.0), and a key that stands twice is no JSON here: the
parser would drop one of the two in silence.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from os.path import commonprefix
from pathlib import Path
from typing import Any

from pipeline.errors import StageError

ONLY_SEALED = "only in the sealed artifact"
ONLY_REBUILT = "only in the rebuilt one"

_NAME = re.compile(r"[\w-]+")
_TEXT_MAX = 80
# How much of what is equal is shown before the first difference.
_LEAD = 20


@dataclass(frozen=True, kw_only=True)
class Lines:
    """A file of lines and how many it has; the last may lack its end."""

    path: Path
    count: int


def read_json(path: Path) -> Any:
    """Return the file's value. Raises StageError when it is no JSON."""
    try:
        return _parse(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise StageError(
            "the file does not parse", on=path.name, why=str(error), then="make the file again"
        ) from None


def read_lines(path: Path) -> Lines:
    """Return the file with the number of its lines."""
    with path.open("rb") as file:
        return Lines(path=path, count=sum(1 for _ in file))


def find_json_changes(sealed: Any, rebuilt: Any) -> Iterator[str]:
    """Yield what differs between two values of JSON files."""
    changes = find_value_changes("$", sealed, rebuilt)
    if (first := next(changes, None)) is not None:
        yield from chain([first], changes)
    elif make_text(sealed) != make_text(rebuilt):
        yield "the values are equal; only the order of keys differs"


def find_line_changes(sealed: Lines, rebuilt: Lines) -> Iterator[str]:
    """Yield what differs between two files of JSON lines; a line that is no JSON counts as text."""
    if sealed.count != rebuilt.count:
        yield f"{sealed.count:,} lines -> {rebuilt.count:,} lines"
    with sealed.path.open("rb") as old_lines, rebuilt.path.open("rb") as new_lines:
        for number, (old, new) in enumerate(zip(old_lines, new_lines, strict=False), start=1):
            if old != new:
                for change in find_value_changes("$", _parse_line(old), _parse_line(new)):
                    yield f"line {number} {change}"


def find_value_changes(path: str, sealed: Any, rebuilt: Any) -> Iterator[str]:
    """Yield what differs between two values of JSON, below the path that leads to them."""
    if isinstance(sealed, dict) and isinstance(rebuilt, dict):
        for key in sealed | rebuilt:
            yield from _find_member_changes(_extend(path, key), key, sealed, rebuilt)
    elif isinstance(sealed, list) and isinstance(rebuilt, list):
        old, new = dict(enumerate(sealed)), dict(enumerate(rebuilt))
        for place in range(max(len(sealed), len(rebuilt))):
            yield from _find_member_changes(f"{path}[{place}]", place, old, new)
    elif repr(sealed) != repr(rebuilt):
        yield f"{path}: {make_change(make_text(sealed), make_text(rebuilt))}"


def make_text(value: Any) -> str:
    """Return the value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False)


def make_change(sealed: str, rebuilt: str) -> str:
    """Return "old -> new", of long texts the part where they begin to differ."""
    begin = 0
    if max(len(sealed), len(rebuilt)) > _TEXT_MAX:
        begin = max(0, len(commonprefix([sealed, rebuilt])) - _LEAD)
    return f"{shorten(sealed, begin)} -> {shorten(rebuilt, begin)}"


def shorten(text: str, begin: int = 0) -> str:
    """Return the text, or of a long one a part that begins there."""
    end = begin + _TEXT_MAX
    return ("..." if begin else "") + text[begin:end] + ("..." if end < len(text) else "")


def _find_member_changes(path: str, key: Any, sealed: Any, rebuilt: Any) -> Iterator[str]:
    if key not in rebuilt:
        yield f"{path}: {ONLY_SEALED}: {shorten(make_text(sealed[key]))}"
    elif key not in sealed:
        yield f"{path}: {ONLY_REBUILT}: {shorten(make_text(rebuilt[key]))}"
    else:
        yield from find_value_changes(path, sealed[key], rebuilt[key])


def _extend(path: str, key: str) -> str:
    return f"{path}.{key}" if _NAME.fullmatch(key) else f"{path}[{make_text(key)}]"


def _parse(text: bytes) -> Any:
    return json.loads(text, object_pairs_hook=_make_object)


def _parse_line(line: bytes) -> Any:
    try:
        return _parse(line)
    except (ValueError, RecursionError):
        return line.decode("utf-8", "backslashreplace")


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return made
