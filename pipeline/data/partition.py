"""One part of a file of canonical rows -> record batches: the function that a cluster maps.

`list_parts` cuts a file at line ends by its bytes alone, so that the parts are the same on every
machine. `render_part` is pure: a part and a `Plan` in, batches out, whatever process it runs in.
Ray Data maps it over `list_parts`, Spark over an RDD of them; `dataset` over its own processes.
Memory is that of one batch.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

import pyarrow as pa

from pipeline.data.allocator import keep_small_blocks
from pipeline.data.fitting import Fitted, fit
from pipeline.data.mask_check import Borders, check_row, read_borders
from pipeline.data.rendering import Renderer
from pipeline.data.row import Row, parse_row
from pipeline.data.style import Style
from pipeline.errors import StageError

ROWS_PER_BATCH = 1000
PART_BYTES = 1 << 19

# Rows that go through a step before the next step begins.
_ROWS_AT_ONCE = 64

SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("input_ids", pa.list_(pa.int32())),
        ("completion_mask", pa.list_(pa.int8())),
        ("length", pa.int32()),
        ("supervised", pa.int32()),
        ("source", pa.string()),
        ("domain", pa.string()),
        ("continues", pa.bool_()),
    ]
)

# What a part gives: with the rows that are left out, which have a reason, a length and no ids.
PART_SCHEMA = SCHEMA.append(pa.field("dropped", pa.string())).append(
    pa.field("truncated", pa.bool_())
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """The lines of a file between two bytes. `sha256` is of these bytes."""

    path: Path
    start: int
    end: int
    first_line: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How every part is rendered. `text` holds the tokenizer and the chat template."""

    text: Path
    style: Style
    sequence_length: int
    too_long: str


def list_parts(path: Path, part_bytes: int = PART_BYTES) -> list[Part]:
    """Return the file's parts in order; each ends with a line, and all but the last are as long
    as `part_bytes` at least."""
    parts: list[Part] = []
    line, start = 1, 0
    with path.open("rb") as file:
        while chunk := file.read(part_bytes):
            chunk += file.readline()
            digest = hashlib.sha256(chunk).hexdigest()
            end = start + len(chunk)
            parts.append(Part(path=path, start=start, end=end, first_line=line, sha256=digest))
            start, line = end, line + chunk.count(b"\n")
    return parts


@lru_cache(maxsize=2)
def make_renderer(text: Path, style: Style) -> Renderer:
    """Return this process's renderer: a tokenizer takes a second to read."""
    keep_small_blocks()
    return Renderer(text, style)


@lru_cache(maxsize=2)
def make_borders(text: Path, style: Style) -> Borders:
    """Return what the template writes around answers, by which every row's mask is checked."""
    renderer = make_renderer(text, style)
    return read_borders(
        renderer.tokenizer, template=renderer.template.source, ends=frozenset(renderer.end_ids)
    )


def render_part(part: Part, plan: Plan) -> Iterator[pa.RecordBatch]:
    """Yield the part's rows in order, PART_SCHEMA. Raises StageError naming the first bad row."""
    # A part gives the same whatever this process rendered before.
    make_renderer(plan.text, plan.style).layouts.forget()
    waiting: list[tuple[Row, Fitted]] = []
    lines = _read_lines(part)
    while group := list(islice(lines, _ROWS_AT_ONCE)):
        for each in _render_group(group, part.path.name, plan):
            waiting.append(each)
            if len(waiting) == ROWS_PER_BATCH:
                yield make_batch(waiting)
                waiting = []
    if waiting:
        yield make_batch(waiting)


def _render_group(
    lines: list[tuple[int, bytes]], name: str, plan: Plan
) -> list[tuple[Row, Fitted]]:
    """Return the rows of the lines, checked. Raises StageError naming the first bad row."""
    try:
        return _render_lines(lines, name, plan)
    except StageError:
        # Another row's, maybe, since an earlier one may fail in a later step.
        for line in lines:
            _render_lines([line], name, plan)
        raise


def _render_lines(
    lines: list[tuple[int, bytes]], name: str, plan: Plan
) -> list[tuple[Row, Fitted]]:
    """Take all lines through one step after another: a step that goes on finds its code and tables
    in the processor's caches."""
    renderer = make_renderer(plan.text, plan.style)
    borders = make_borders(plan.text, plan.style)
    rows = [(parse_row(line, on=f"{name}:{number}"), number) for number, line in lines]
    limit, too_long = plan.sequence_length, plan.too_long
    rendered = [
        each
        for row, number in rows
        for each in fit(
            renderer, row, limit=limit, too_long=too_long, on=describe(row, f"{name}:{number}")
        )
    ]
    for row, fitted in rendered:
        if fitted.dropped is None:
            check_row(
                row,
                fitted.input_ids,
                fitted.completion_mask,
                continues=fitted.continues,
                borders=borders,
                tokenizer=renderer.tokenizer,
            )
    return rendered


def describe(row: Row, place: str) -> str:
    """Return how a message names the row: id, where it lies, where it came from, how it begins."""
    said = (
        row.text
        if row.text is not None
        else next((turn.content for turn in row.messages if turn.role == "user"), "")
    )
    source = f", from {row.source}" if row.source else ""
    return f"row {row.id} ({place}{source}): {said[:60]!r}"


def _read_lines(part: Part) -> Iterator[tuple[int, bytes]]:
    with part.path.open("rb") as file:
        file.seek(part.start)
        number, position = part.first_line, part.start
        while position < part.end:
            line = file.readline()
            yield number, line
            number, position = number + 1, position + len(line)


def make_batch(rows: list[tuple[Row, Fitted]]) -> pa.RecordBatch:
    """Return the rows as one batch, PART_SCHEMA."""
    columns = {
        "row_id": [row.id for row, _ in rows],
        "input_ids": [fitted.input_ids for _, fitted in rows],
        "completion_mask": [fitted.completion_mask for _, fitted in rows],
        "length": [fitted.length for _, fitted in rows],
        "supervised": [sum(fitted.completion_mask) for _, fitted in rows],
        "source": [row.source for row, _ in rows],
        "domain": [row.domain for row, _ in rows],
        "continues": [fitted.continues for _, fitted in rows],
        "dropped": [fitted.dropped for _, fitted in rows],
        "truncated": [fitted.truncated for _, fitted in rows],
    }
    return pa.record_batch(
        [pa.array(columns[field.name], field.type) for field in PART_SCHEMA], schema=PART_SCHEMA
    )
