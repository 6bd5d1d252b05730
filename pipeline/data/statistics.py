"""A split's Arrow file -> its numbers, in one pass over its batches.

Counts alone are kept: of lengths, of supervised shares, by domain. So memory does not grow with
the rows, and median and percentiles are exact all the same. Columns `row_id`, `input_ids` and
`completion_mask` are needed; the others are read where they are there.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

# Of a data set: what is trained on, and what it is judged by.
SPLITS = ("train", "held_out")

# Of the supervised share, 0 to 1.
SHARE_BINS = 20

# More are one: a column of ids taken for the domain must not fill the memory.
MOST_DOMAINS = 1000
OTHERS = "(other domains)"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some rows in whole columns: row n's tokens are those from `starts[n]` to `stops[n]`. Where
    `continues[n]`, its text goes on in the next row."""

    row_ids: list[str]
    sources: list[str]
    domains: list[str]
    continues: np.ndarray
    ids: np.ndarray
    mask: np.ndarray
    starts: np.ndarray
    stops: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return self.stops - self.starts

    @property
    def supervised(self) -> np.ndarray:
        """Supervised tokens of each row."""
        sums = np.concatenate([[0], np.cumsum(self.mask, dtype=np.int64)])
        return sums[self.stops] - sums[self.starts]


@dataclass(kw_only=True)
class Domain:
    """What one domain has."""

    rows: int = 0
    tokens: int = 0
    supervised_tokens: int = 0


@dataclass(kw_only=True)
class Statistics:
    """What one split has; `rows_of_length[n]` rows have n tokens."""

    rows: int = 0
    tokens: int = 0
    supervised_tokens: int = 0
    rows_of_length: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))
    rows_of_share: np.ndarray = field(default_factory=lambda: np.zeros(SHARE_BINS, np.int64))
    domains: dict[str, Domain] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)

    def add(self, batch: Batch) -> None:
        """Count a batch."""
        lengths, supervised = batch.lengths, batch.supervised
        self.rows += len(lengths)
        self.tokens += int(lengths.sum())
        self.supervised_tokens += int(supervised.sum())
        self.rows_of_length = _sum_up(self.rows_of_length, np.bincount(lengths, minlength=1))
        shares = supervised / np.maximum(lengths, 1)
        bins = np.minimum((shares * SHARE_BINS).astype(np.int64), SHARE_BINS - 1)
        self.rows_of_share = self.rows_of_share + np.bincount(bins, minlength=SHARE_BINS)
        self._add_domains(batch.domains, lengths, supervised)

    def _add_domains(
        self, names: Sequence[str], lengths: np.ndarray, supervised: np.ndarray
    ) -> None:
        order: dict[str, int] = {}
        which = np.array([order.setdefault(name, len(order)) for name in names])
        sums = [np.bincount(which), *(np.bincount(which, each) for each in (lengths, supervised))]
        for name, rows, tokens, taught in zip(order, *sums, strict=True):
            if name not in self.domains and len(self.domains) >= MOST_DOMAINS:
                name = OTHERS
            domain = self.domains.setdefault(name, Domain())
            domain.rows += int(rows)
            domain.tokens += int(tokens)
            domain.supervised_tokens += int(taught)

    def find_length(self, share: float) -> int:
        """Return the least length that so large a share of the rows, and at least one, has not
        more than."""
        reached = np.cumsum(self.rows_of_length) >= max(1, share * self.rows)
        return int(np.argmax(reached))

    def make_document(self) -> dict[str, object]:
        """Return what statistics.json says of the split."""
        quantiles = {"min": 0.0, "median": 0.5, "p95": 0.95, "max": 1.0}
        return {
            "rows": self.rows,
            "tokens": self.tokens,
            "supervised_tokens": self.supervised_tokens,
            "lengths": {name: self.find_length(share) for name, share in quantiles.items()},
            "domains": {name: vars(each) for name, each in sorted(self.domains.items()) if name},
            "dropped": dict(sorted(self.dropped.items())),
        }


def _sum_up(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the sum of two counts, of which one may be longer."""
    total = np.zeros(max(len(left), len(right)), np.int64)
    total[: len(left)] += left
    total[: len(right)] += right
    return total


def read_batches(arrow: Path) -> Iterator[Batch]:
    """Yield the rows of an Arrow file, one record batch at a time."""
    with pa.memory_map(str(arrow)) as source, pa.ipc.open_stream(source) as reader:
        for record in reader:
            if record.num_rows:
                yield make_batch(record)


def make_batch(record: pa.RecordBatch) -> Batch:
    """Return a record batch as whole columns."""
    ids, mask = record.column("input_ids"), record.column("completion_mask")
    lengths = ids.value_lengths().to_numpy()
    assert np.array_equal(lengths, mask.value_lengths().to_numpy()), "one mask bit per token"
    stops = np.cumsum(lengths, dtype=np.int64)

    def read(name: str) -> list[str]:
        there = name in record.schema.names
        return record.column(name).to_pylist() if there else [""] * record.num_rows

    return Batch(
        row_ids=read("row_id"),
        sources=read("source"),
        domains=read("domain"),
        continues=np.array(record.column("continues").to_pylist(), bool)
        if "continues" in record.schema.names
        else np.zeros(record.num_rows, bool),
        ids=ids.flatten().to_numpy(),
        mask=mask.flatten().to_numpy(),
        starts=stops - lengths,
        stops=stops,
    )


def read_statistics(arrow: Path, dropped: Mapping[str, int]) -> Statistics:
    """Return the numbers of a split; `dropped` counts by reason the rows that are not in it."""
    found = Statistics(dropped=Counter(dropped))
    for batch in read_batches(arrow):
        found.add(batch)
    return found
