"""How answers look: aligned tables, whole numbers, ages, and the JSON of `--json`."""

import datetime
import json
from collections.abc import Collection, Sequence
from pathlib import Path

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_SHORT_DIGITS = 12
_LONGEST_NUMBER = 20


def dump(document: object) -> str:
    """Return the text of a JSON document."""
    return json.dumps(document, indent=1) + "\n"


def format_table(headings: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    """Return aligned columns, numbers to the right ("-" stands for one that is not known)."""
    cells = [headings, *(tuple(str(cell) for cell in row) for row in rows)]
    right = {
        column
        for column in range(len(headings))
        if _holds_numbers([row[column] for row in cells[1:]])
    }
    heading, *lines = align(cells, right)
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    return "\n".join([heading, "  ".join("-" * width for width in widths), *lines]) + "\n"


def _holds_numbers(cells: Sequence[str]) -> bool:
    known = [cell for cell in cells if cell != "-"]
    return bool(known or not cells) and all(
        cell[:1].isdigit() and len(cell) < _LONGEST_NUMBER for cell in known
    )


def align(rows: Sequence[tuple[str, ...]], right: Collection[int] = ()) -> list[str]:
    """Return a line per row, the columns as wide as their widest cell; `right` are aligned to the
    right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def format_bytes(size_bytes: int) -> str:
    """Return the whole number, grouped."""
    return f"{size_bytes:,}"


def format_seconds(seconds: float | None) -> str:
    """Return the seconds to a tenth; "-" when nobody noted them."""
    return "-" if seconds is None else f"{seconds:.1f}"


def format_age(sealed_at: str | None, now: datetime.datetime) -> str:
    """Return how long ago a time (ISO 8601, UTC unless it says otherwise) was, in its largest whole
    unit: `3 h ago`. "-" for none and for what is no time."""
    try:
        then = datetime.datetime.fromisoformat(sealed_at or "")
    except ValueError:
        return "-"
    if then.tzinfo is None:
        then = then.replace(tzinfo=datetime.UTC)
    age_s = (now - then).total_seconds()
    if age_s < 0:
        return "in the future"
    for unit_s, unit in _UNITS:
        if age_s >= unit_s:
            return f"{age_s // unit_s:.0f} {unit} ago"
    return "just now"


def shorten_digest(digest: str) -> str:
    """Return enough of a digest for people to tell it from others, and to name an artifact by."""
    return f"{digest[:_SHORT_DIGITS]}..." if len(digest) > _SHORT_DIGITS else digest


def shorten_path(path: Path) -> str:
    """Return the path as seen from the current directory when it lies in there."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
