"""train.arrow / held_out.arrow -> the columns that the trainer takes: input_ids and labels.

A label is the token's own id where the completion mask is 1, and -100 elsewhere: the mask is
copied, nothing is searched for. Reads whole columns, so that a row costs no Python.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset

from pipeline.errors import StageError

IGNORED = -100


def _flatten(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return all values of a list column in one array, and each row's length."""
    whole = column.combine_chunks()
    return whole.flatten().to_numpy(), whole.value_lengths().to_numpy()


def make_labels(input_ids: np.ndarray, completion_mask: np.ndarray) -> np.ndarray:
    """Return the ids where the mask is 1 and -100 elsewhere; int64, one per token."""
    return np.where(completion_mask == 1, input_ids.astype(np.int64), IGNORED)


def read_split(arrow: Path, *, limit: int | None = None) -> Dataset:
    """Return the first `limit` rows (all when None) with columns input_ids and labels.

    In memory, so that `datasets` never writes a cache beside the read-only artifact.
    Raises StageError when not one token is supervised.
    """
    with pa.memory_map(str(arrow)) as source:
        table = pa.ipc.open_stream(source).read_all().slice(0, limit)
    ids, lengths = _flatten(table.column("input_ids"))
    mask, mask_lengths = _flatten(table.column("completion_mask"))
    assert np.array_equal(lengths, mask_lengths), "every token has one mask bit"
    if not mask.any():
        raise StageError(
            "not one token is supervised",
            on=arrow.name,
            why="every completion mask is zero: there is nothing to learn",
            then="look at a row with `python -m pipeline.sft.masks`",
        )
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    columns = {
        "input_ids": pa.ListArray.from_arrays(offsets, pa.array(ids, pa.int32())),
        "labels": pa.ListArray.from_arrays(offsets, pa.array(make_labels(ids, mask), pa.int64())),
    }
    return Dataset(pa.table(columns))
