"""Short rows -> packs of a few rows each, in which every row is computed as if it were alone.

Which rows share a pack is best-fit decreasing: the longest first, each where the least room is
left that holds it. A pack is one sequence whose positions begin anew with each row; transformers
reads from them where rows begin (`find_packed_sequence_indices`) and lets no token see another
row's. The first token of a row carries no loss, which would be of the row before.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset

from pipeline.sft.arrow import IDS, IGNORED, LABELS, hold, make_lists

_SCHEMA = pa.schema([("input_ids", IDS), ("labels", LABELS), ("seq_lengths", LABELS)])
_PACKS_PER_BATCH = 1000


def pack_best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Return the rows of each pack, by their numbers; no pack is longer than `capacity`, but for
    one row that is so by itself.

    The rooms that exist are the bits of one number, so that the least that fits is one shift away.
    """
    packs: list[list[int]] = []
    by_room: dict[int, list[int]] = {}
    rooms = 0
    for row in sorted(range(len(lengths)), key=lambda each: (-lengths[each], each)):
        fitting = rooms >> lengths[row]
        if fitting:
            room = lengths[row] + (fitting & -fitting).bit_length() - 1
            pack = by_room[room].pop()
            if not by_room[room]:
                rooms &= ~(1 << room)
            packs[pack].append(row)
        else:
            room, pack = capacity, len(packs)
            packs.append([row])
        left = room - lengths[row]
        if left > 0:
            by_room.setdefault(left, []).append(pack)
            rooms |= 1 << left
    return packs


def pack_rows(rows: Dataset, capacity: int, *, scratch: Path | None = None) -> Dataset:
    """Return packs: input_ids and labels of their rows joined, and seq_lengths, the rows' lengths.

    The packs are in the order of their first rows, so that they do not come sorted by length. They
    lie in a file in `scratch`, a directory on a disk; without one, in memory.
    """
    columns = [_Lists(rows.data.table.column(name)) for name in ("input_ids", "labels")]
    packs = sorted(map(sorted, pack_best_fit(columns[0].lengths.tolist(), capacity)))
    made = (
        _make_packs(packs[start : start + _PACKS_PER_BATCH], columns)
        for start in range(0, len(packs), _PACKS_PER_BATCH)
    )
    return hold(made, _SCHEMA, scratch and scratch / "packs.arrow")


class _Lists:
    """A column of lists, of which single rows are read where they lie."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._values = [chunk.values.to_numpy() for chunk in column.chunks]
        self._offsets = [chunk.offsets.to_numpy() for chunk in column.chunks]
        self._firsts = np.cumsum([0, *map(len, column.chunks)])
        none = np.zeros(0, np.int64)
        self.lengths = np.concatenate([none, *map(np.diff, self._offsets)])

    def join(self, numbers: Sequence[int]) -> np.ndarray:
        """Return the values of the rows of these numbers, one after the other."""
        chunks = np.searchsorted(self._firsts, numbers, side="right") - 1
        parts = []
        for number, chunk in zip(numbers, chunks, strict=True):
            begin, end = self._offsets[chunk][number - self._firsts[chunk] :][:2]
            parts.append(self._values[chunk][begin:end])
        return np.concatenate(parts)


def _make_packs(packs: Sequence[Sequence[int]], columns: Sequence[_Lists]) -> pa.RecordBatch:
    numbers = [number for pack in packs for number in pack]
    lengths = columns[0].lengths[numbers]
    sizes = np.array([len(pack) for pack in packs])
    tokens = np.add.reduceat(lengths, np.cumsum(sizes) - sizes)
    lists = [
        make_lists(column.join(numbers), tokens, kind)
        for column, kind in zip(columns, (IDS, LABELS), strict=True)
    ]
    return pa.record_batch([*lists, make_lists(lengths, sizes, LABELS)], schema=_SCHEMA)


def collate_packs(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """Return one sequence of all the rows, each of which may be a pack: ids, labels, positions.

    No attention mask on purpose: with one, transformers would not look at the positions.
    """
    lengths = [
        length for row in rows for length in row.get("seq_lengths") or [len(row["input_ids"])]
    ]
    positions = torch.cat([torch.arange(length) for length in lengths])
    labels = torch.tensor([each for row in rows for each in row["labels"]])
    labels[positions == 0] = IGNORED
    ids = torch.tensor([each for row in rows for each in row["input_ids"]])
    return {
        "input_ids": ids.unsqueeze(0),
        "labels": labels.unsqueeze(0),
        "position_ids": positions.unsqueeze(0),
    }
