"""`python -m pipeline.data.masks DATASET_DIR TEXT_DIR ROW [ROWS_DIR]`: what one row teaches.

Reads the very Arrow file that training reads, and marks a token as supervised where training's own
function gives it a label. ROW is the id of a row of either split, or a number in train.arrow, from
0. Supervised tokens are green on a terminal and stand in brackets elsewhere. Then the row is
checked, with ROWS_DIR against the canonical row that it came from, too: exit code 5 where the mask
cannot be right.
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data.encoding import read_tokenizer
from pipeline.data.mask_check import check_batch, check_row, read_borders
from pipeline.data.row import Row, parse_row
from pipeline.data.statistics import SPLITS, Batch, make_batch
from pipeline.data.view import COLOUR, PLAIN, make_view
from pipeline.errors import StageError, TristillError
from pipeline.sft.arrow import IGNORED, make_labels

_USAGE = "usage: python -m pipeline.data.masks DATASET_DIR TEXT_DIR ROW [ROWS_DIR]\n"


class Found(NamedTuple):
    """One row of a split; `mask` says which of its labels are not ignored."""

    split: str
    ids: list[int]
    mask: list[int]
    batch: Batch


def read_row(dataset: Path, row: str) -> Found:
    """Return one row by its id or number. Raises StageError when there is no such row."""
    splits = [(name, dataset / f"{name}.arrow") for name in SPLITS]
    for split, arrow in splits:
        if (found := _read_row(arrow, split, row)) is not None:
            return found
    if row.isascii() and row.isdecimal():
        split, arrow = splits[0]
        if (found := _read_row(arrow, split, int(row))) is not None:
            return found
    raise StageError(
        "there is no such row",
        on=f"row {row} of {dataset}",
        why="no row has that id, and train.arrow not so many rows",
        then="give an id that report.html shows, or a smaller number, from 0",
    )


def _read_row(arrow: Path, split: str, row: str | int) -> Found | None:
    """Return the row of that id or number, if the file holds it."""
    with pa.memory_map(str(arrow)) as mapped, pa.ipc.open_stream(mapped) as reader:
        table = reader.read_all()  # mapped: only what is looked at is read
        index = pc.index(table.column("row_id"), row).as_py() if isinstance(row, str) else row
        if not 0 <= index < table.num_rows:
            return None
        (record,) = table.slice(index, 1).combine_chunks().to_batches()
        batch = make_batch(record)
        # Out of the mapping, which ends here.
        batch = Batch(**vars(batch) | {"ids": batch.ids.copy(), "mask": batch.mask.copy()})
    mask = (make_labels(batch.ids, batch.mask) != IGNORED).astype(np.int8)
    return Found(split, batch.ids.tolist(), mask.tolist(), batch)


def read_canonical(rows: Path, row_id: str) -> Row | None:
    """Return the canonical row of that id; None when the file has none."""
    # The id is each line's first key, so a line that is not it need not be parsed.
    start = json.dumps({"id": row_id}, ensure_ascii=False)[:-1].encode("utf-8")
    with rows.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.startswith(start):
                return parse_row(line, on=f"{rows.name}:{number}")
    return None


def show(dataset: Path, text: Path, row: str, rows: Path | None) -> None:
    """Write the row to stdout. Raises StageError for a mask that cannot be right."""
    found = read_row(dataset, row)
    tokenizer = read_tokenizer(text)
    marks = COLOUR if sys.stdout.isatty() else PLAIN
    (row_id,), (source,) = found.batch.row_ids, found.batch.sources
    origin = f" ({source})" if source else ""
    head = f"{len(found.ids)} tokens, {sum(found.mask)} supervised"
    view = make_view(tokenizer, found.ids, found.mask, marks)
    sys.stdout.write(f"row {row_id}{origin}: {head}\n{view}\n")
    borders = read_borders(tokenizer)
    check_batch(found.batch, borders, tokenizer)
    canonical = read_canonical(rows / f"{found.split}.jsonl", row_id) if rows else None
    if canonical:
        check_row(canonical, found.ids, found.mask, borders=borders, tokenizer=tokenizer)


def main(argv: list[str]) -> int:
    """Show one row on stdout; return the exit code."""
    if len(argv) not in (3, 4):
        sys.stderr.write(_USAGE)
        return 2
    try:
        show(Path(argv[0]), Path(argv[1]), argv[2], Path(argv[3]) if argv[3:] else None)
    except TristillError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
