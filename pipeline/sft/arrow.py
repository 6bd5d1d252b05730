"""train.arrow / held_out.arrow -> the columns that the trainer takes: input_ids and labels.

A label is the token's own id where the completion mask is 1, and -100 elsewhere: the mask is
copied, nothing is searched for. Reads whole columns of a batch, so that a row costs no Python, and
never more than a batch: what is made lies in a file whose pages are mapped as they are needed.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset

from pipeline.errors import StageError

IGNORED = -100

IDS, LABELS = pa.large_list(pa.int32()), pa.large_list(pa.int64())
_SCHEMA = pa.schema([("input_ids", IDS), ("labels", LABELS)])


def make_labels(input_ids: np.ndarray, completion_mask: np.ndarray) -> np.ndarray:
    """Return the ids where the mask is 1 and -100 elsewhere; int64, one per token."""
    return np.where(completion_mask == 1, input_ids.astype(np.int64), IGNORED)


def read_split(arrow: Path, *, limit: int | None = None, scratch: Path | None = None) -> Dataset:
    """Return the first `limit` rows (all when None) with columns input_ids and labels.

    They lie in a file in `scratch`, a directory on a disk; without one, in memory.
    Raises StageError when not one token is supervised, or none of some row's.
    """
    supervised, rows_read = 0, 0
    empty: list[int] = []

    def make_batches() -> Iterator[pa.RecordBatch]:
        nonlocal supervised, rows_read
        for batch in _read_batches(arrow, limit):
            ids, lengths = _flatten(batch.column("input_ids"))
            mask, mask_lengths = _flatten(batch.column("completion_mask"))
            assert np.array_equal(lengths, mask_lengths), "every token has one mask bit"
            supervised += int(np.count_nonzero(mask))
            empty.extend((rows_read + _find_empty(mask, lengths)).tolist())
            rows_read += len(lengths)
            lists = [
                make_lists(ids, lengths, IDS),
                make_lists(make_labels(ids, mask), lengths, LABELS),
            ]
            yield pa.record_batch(lists, schema=_SCHEMA)

    rows = hold(make_batches(), _SCHEMA, scratch and scratch / arrow.name)
    if not supervised:
        raise StageError(
            "not one token is supervised",
            on=arrow.name,
            why="every completion mask is zero: there is nothing to learn",
            then="look at a row with `python -m pipeline masks`",
        )
    if empty:
        raise StageError(
            "rows have no supervised token",
            on=f"{arrow.name}, {len(empty)} of {rows_read} rows, the first is row {empty[0]} (from"
            " 0)",
            why="their answers are empty, or cut off: an optimizer step on them alone does nothing",
            then="look at one with `python -m pipeline masks`, and mend or drop them in the data",
        )
    return rows


def _find_empty(mask: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the numbers of the rows that teach nothing; a row's first token is predicted from
    nothing."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    learnt = np.concatenate([[0], np.cumsum(mask != 0)])
    found = learnt[offsets[1:]] - learnt[np.minimum(offsets[:-1] + 1, offsets[1:])]
    return np.flatnonzero(found == 0)


def _read_batches(arrow: Path, limit: int | None) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(arrow)) as source, pa.ipc.open_stream(source) as batches:
        left = limit
        for batch in batches:
            part = batch.slice(0, left)
            left = None if left is None else left - len(part)
            yield part
            if left == 0:
                return


def _flatten(column: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    """Return all values of a list column in one array, and each row's length."""
    return column.flatten().to_numpy(), column.value_lengths().to_numpy()


def make_lists(values: np.ndarray, lengths: np.ndarray, kind: pa.DataType) -> pa.Array:
    """Return lists of these lengths, of one value after the other."""
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
    return pa.LargeListArray.from_arrays(offsets, pa.array(values, kind.value_type))


def hold(batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path | None) -> Dataset:
    """Return the batches as one Dataset: written to a file whose pages are mapped, or in memory.

    `datasets` knows of no file, and so writes no cache beside it.
    """
    sink = pa.OSFile(str(path), "wb") if path else pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    written = None if path else sink.getvalue()
    sink.close()
    source = pa.memory_map(str(path)) if path else pa.BufferReader(written)
    # Its own fingerprint would be the digest of a copy of all rows in memory.
    return Dataset(pa.ipc.open_stream(source).read_all(), fingerprint="rows")
