"""The data set, as far as it is at hand -> rows, tokens and optimizer steps.

Of a sealed data set the numbers are its own. Of the user's files the rows are read and cleaned as
the stage `data.rows` does it, duplicates that are not exact and contamination apart, and tokens are
modelled by characters. Standard library only: Parquet and saved data sets are not read here.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Any

from pipeline.data.cleaning import count_characters, find_fault, find_filtered, parse_filter
from pipeline.data.formats import find_format, make_row
from pipeline.data.readers import read_records
from pipeline.data.row import Row, write_row
from pipeline.data.source import READERS, SAVED, Source
from pipeline.errors import StageError
from pipeline.recipe.dataset import DEMO, Rows
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.row_sources import list_row_paths
from pipeline.source_files import list_row_files

# In Mistral's vocabulary of 131,072: 3.5 of prose, 3.8 of Python, 2.9 of sums worked out in words
# and digits; and what a chat template adds to a row.
CHARACTERS_PER_TOKEN = 3.5
_TEMPLATE_TOKENS = 8
# More is not read for a plan, which is to answer at once.
_MOST_BYTES = 32_000_000
_IN_PYTHON = ("jsonl", "json", "csv", "tsv", "text")


@dataclass(frozen=True, kw_only=True)
class RowCount:
    """What there is to train on. `why` says what is modelled, "" when nothing is.

    `tokens` and `supervised_tokens` are of the training rows; `too_long_share` is that of rows that
    sequence_length cuts or leaves out.
    """

    read: int
    train: int
    held_out: int
    tokens: int
    supervised_tokens: int | None
    too_long_share: float
    why: str = ""

    @property
    def row_tokens(self) -> float:
        """Tokens of a training row on average."""
        return self.tokens / self.train if self.train else 0.0


def count_steps(rows: int, *, batch_size: int, accumulation: int, epochs: float) -> int:
    """Return the optimizer steps of so many passes, as transformers' trainer counts them: batches
    of the last part of a pass make a step, too."""
    batches = ceil(rows / batch_size)
    return ceil(epochs * ceil(batches / accumulation))


def count_training_steps(recipe: Recipe, rows: RowCount) -> int:
    """Return the recipe's optimizer steps; of packs as many as the tokens fill."""
    train = recipe.train
    if train.max_steps:
        return train.max_steps
    units = ceil(rows.tokens / train.pack_tokens) if train.pack_tokens else rows.train
    return count_steps(
        units,
        batch_size=train.batch_size,
        accumulation=train.gradient_accumulation,
        epochs=train.epochs,
    )


def read_sealed_rows(dataset: Path) -> RowCount | None:
    """Return the numbers of a sealed artifact `dataset`."""
    document = _read_json(dataset / "statistics.json")
    try:
        train, held_out = document["train"], document["held_out"]
        left_out = sum(train.get("dropped", {}).values())
        total = train["rows"] + left_out
        return RowCount(
            read=total + held_out["rows"],
            train=train["rows"],
            held_out=held_out["rows"],
            tokens=train["tokens"],
            supervised_tokens=train["supervised_tokens"],
            too_long_share=(left_out + train.get("truncated", 0)) / total,
        )
    except (KeyError, TypeError, AttributeError, ZeroDivisionError):
        return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def count_rows(recipe: Recipe) -> RowCount | None:
    """Return the numbers of the recipe's files; None when they cannot be counted here."""
    dataset = recipe.dataset
    if dataset.source == DEMO:
        return _count_demo(recipe)
    try:
        paths = list_row_paths(dataset)
        total_bytes = sum(path.stat().st_size for path in paths)
        if total_bytes > _MOST_BYTES:
            return None
        lengths, read = _read_lengths(recipe)
    except (OSError, StageError):
        return None
    kept = sorted(lengths)[: max(len(lengths) - dataset.held_out, 0)]
    return _make_count(recipe, kept, read=read)


def _count_demo(recipe: Recipe) -> RowCount:
    """The demonstration's rows are all alike: each digit is a token, a column's line has nine."""
    digits, rows = recipe.demo.digits, recipe.demo.rows
    fits = 12 * digits + 15 <= recipe.dataset.sequence_length
    is_plain = recipe.base.source == DEMO and recipe.dataset.thinking == "text"
    return RowCount(
        read=rows + recipe.dataset.held_out,
        train=rows if fits else 0,
        held_out=recipe.dataset.held_out,
        tokens=(12 * digits + 15) * rows if fits else 0,
        supervised_tokens=(10 * digits + 6) * rows if fits else 0,
        too_long_share=0.0 if fits else 1.0,
        why="" if is_plain else "as the demonstration's own base reads them",
    )


def _make_count(recipe: Recipe, characters: list[int], *, read: int) -> RowCount:
    limit = recipe.dataset.sequence_length
    tokens = [ceil(each / CHARACTERS_PER_TOKEN) + _TEMPLATE_TOKENS for each in characters]
    cuts = recipe.dataset.too_long == "truncate"
    used = [min(each, limit) for each in tokens if cuts or each <= limit]
    return RowCount(
        read=read,
        train=len(used),
        held_out=min(recipe.dataset.held_out, read),
        tokens=sum(used),
        supervised_tokens=None,
        too_long_share=sum(each > limit for each in tokens) / max(len(tokens), 1),
        why=f"{CHARACTERS_PER_TOKEN:g} characters to a token; near duplicates are not looked for",
    )


def _read_lengths(recipe: Recipe) -> tuple[list[int], int]:
    """Return the characters of each row that cleaning keeps, and how many rows were read.

    Raises StageError for a row that is not what its format says.
    """
    lengths: list[int] = []
    seen: set[bytes] = set()
    read = 0
    for rows in recipe.dataset.sources:
        for row in _read_rows(rows):
            read += 1
            if row is None:
                continue
            line = write_row(row)
            fault = find_fault(
                row,
                line,
                max_characters=recipe.dataset.max_characters,
                require_thinking=recipe.dataset.require_thinking,
            )
            digest = sha256(line.encode("utf-8", "surrogatepass")).digest()
            if not fault and digest not in seen:
                seen.add(digest)
                lengths.append(count_characters(row))
    return lengths, read


def _read_rows(rows: Rows) -> Iterator[Row | None]:
    """Yield each row of a source; None for one that its `keep` leaves out."""
    place = Path(rows.source)
    names = list_row_files(place, rows.split) if place.is_dir() else (place.name,)
    shared = {each.name for each in fields(Source)} & vars(rows).keys()
    source = Source(is_file=place.is_file(), **{name: getattr(rows, name) for name in shared})
    filters = tuple(map(parse_filter, rows.keep))
    form = ""
    for name in names:
        path = place / name if place.is_dir() else place
        reader = READERS.get(path.suffix.lower(), "")
        if reader not in _IN_PYTHON or path.name in SAVED:
            raise StageError(
                "rows of this form are not counted before they are built",
                on=path.name,
                why="they are read by a library of the image",
                then="build the artifact rows",
            )
        for on, columns in read_records(path, reader, name):
            form = form or find_format(columns, source, on=on)
            if find_filtered(columns, filters, on=on):
                yield None
            else:
                yield replace(make_row(columns, form, source, row_id="", where=on), source="")
