"""A few training rows with what the model learns to write marked, for a page.

Read from what is sealed and was itself made from ids and masks: the rows that the trainer kept as
it received them, else the page of the data set. Nothing is tokenized here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from html.parser import HTMLParser
from typing import Any

from pipeline.artifact.store import Artifact
from pipeline.report.quality import read_document
from pipeline.report.training import SAMPLE
from pipeline.rules.training import TRAINING

_ROWS = 3
_PIECES = 600  # of a row
_DATA = "data"  # the id of the element that holds the page's rows
# What the page of the data set says of a piece.
_TAUGHT, _CONTROL = 1, 2


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One row; a piece is a text, whether it is supervised, and whether it is control tokens."""

    title: str
    pieces: Sequence[tuple[str, bool, bool]]


def read_samples(sealed: Mapping[str, Artifact]) -> list[Sample]:
    """Return up to three rows; none where nothing that shows them was built."""
    kept = read_document(sealed.get(TRAINING), SAMPLE) or []
    if kept:
        return [read_kept(row) for row in kept[:_ROWS]]
    page = sealed.get("dataset-report")
    if page is None:
        return []
    rows = read_page_rows((page.path / "report.html").read_text(encoding="utf-8"))
    taught = [row for row in rows if row["split"] == "train"]
    chosen = [taught[n * len(taught) // _ROWS] for n in range(min(_ROWS, len(taught)))]
    return [read_shown(row) for row in chosen]


def read_page_rows(page: str) -> list[dict[str, Any]]:
    """Return the rows that the page of a data set holds for its own script."""
    reader = _Reader()
    reader.feed(page)
    reader.close()
    rows: list[dict[str, Any]] = json.loads("".join(reader.found) or "[]")
    return rows


class _Reader(HTMLParser):
    """Collects the text of the one element that holds the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._is_inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._is_inside = tag == "script" and ("id", _DATA) in attrs

    def handle_endtag(self, tag: str) -> None:
        self._is_inside = False

    def handle_data(self, data: str) -> None:
        if self._is_inside:
            self.found.append(data)


def read_kept(row: Mapping[str, Any]) -> Sample:
    """Return a row that the trainer kept."""
    title = f"Row {row['row']}: {row['tokens']:,} tokens, {row['supervised']:,} supervised"
    return Sample(title=title, pieces=[(text, bool(a), bool(b)) for text, a, b in row["pieces"]])


def read_shown(row: Mapping[str, Any]) -> Sample:
    """Return a row of the data set's page."""
    flags = [int(each) for each in row["flags"]]
    pieces = [
        (text, bool(flag & _TAUGHT), bool(flag & _CONTROL))
        for text, flag in zip(row["texts"], flags, strict=True)
    ]
    title = f"Row {row['id']}: {row['tokens']:,} tokens, {row['supervised']:,} supervised"
    return Sample(title=title, pieces=pieces)


def make_samples(samples: Sequence[Sample]) -> str:
    """Return the rows as HTML; every text is escaped."""
    return "".join(
        f"<p>{escape(each.title)}</p>"
        f'<div class="tokens">{"".join(_make_piece(*piece) for piece in each.pieces[:_PIECES])}'
        f"{'<span> …</span>' if len(each.pieces) > _PIECES else ''}</div>"
        for each in samples
    )


def _make_piece(text: str, taught: bool, control: bool) -> str:
    kinds = " ".join(name for name, on in (("taught", taught), ("control", control)) if on)
    # A line end is a token that would not be seen. Half of a surrogate pair cannot be written.
    shown = escape(text.replace("\n", "⏎\n").encode("utf-8", "replace").decode("utf-8"))
    return f'<span class="{kinds}">{shown}</span>' if kinds else f"<span>{shown}</span>"
