"""The rows of an epoch in shares of one size, so that each process takes as many steps.

The batches are those of one process, dealt out in turns. Where they do not come out even,
accelerate would take rows from the epoch's beginning again, and the last step would learn them
twice; here rows without a supervised token fill up, which neither loss nor gradient sees.
"""

from collections.abc import Iterator
from typing import Any

from datasets import Dataset
from torch.utils.data import BatchSampler, DataLoader, RandomSampler
from torch.utils.data import Dataset as MapDataset

from pipeline.sft.arrow import IGNORED

_FILLER = {"input_ids": [0], "labels": [IGNORED]}


class FilledRows(MapDataset[dict[str, Any]]):
    """Rows, and behind them as many fillers as make a multiple of `multiple`."""

    def __init__(self, rows: Dataset, multiple: int) -> None:
        self.rows = rows
        self._length = -(-len(rows) // multiple) * multiple

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.rows[number] if number < len(self.rows) else _FILLER


class FilledBatches(BatchSampler):
    """Numbers of rows by batches: the rows in the sampler's order, then the fillers."""

    def __init__(self, filled: FilledRows, batch_size: int) -> None:
        # accelerate puts one in its place that draws by seed and epoch, as with one process.
        super().__init__(RandomSampler(range(len(filled.rows))), batch_size, drop_last=False)
        self._length = len(filled)

    def __len__(self) -> int:
        return self._length // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        numbers = [*self.sampler, *range(len(self.sampler), self._length)]
        for start in range(0, len(numbers), self.batch_size):
            yield numbers[start : start + self.batch_size]


def make_loader(rows: Dataset, *, batch_size: int, processes: int, **rest: Any) -> DataLoader[Any]:
    """Return all batches of an epoch, as many for each process; `rest` is the loader's."""
    filled = FilledRows(rows, batch_size * processes)
    return DataLoader(filled, batch_sampler=FilledBatches(filled, batch_size), **rest)
