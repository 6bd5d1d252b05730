"""The numbers are those that a plain count gives, however the rows lie in batches."""

import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import statistics as module
from pipeline.data.statistics import OTHERS, read_batches, read_statistics
from tests.data.arrow_files import HandRow, make_hand_row, write_arrow

pytestmark = pytest.mark.train


def test_numbers_of_a_split(tmp_path: Path) -> None:
    rows = [make_hand_row(f"r{n}", "q", "a" * n, domain="ab"[n % 2]) for n in range(1, 8)]
    found = read_statistics(write_arrow(tmp_path / "a.arrow", rows), {"too long": 3})
    # BOS, INST, q, END_INST, the answer, EOS
    assert found.make_document() == {
        "rows": 7,
        "tokens": 7 * 5 + 28,
        "supervised_tokens": 28 + 7,
        "lengths": {"min": 6, "median": 9, "p95": 12, "max": 12},
        "domains": {
            "a": {"rows": 3, "tokens": 3 * 5 + 12, "supervised_tokens": 15},
            "b": {"rows": 4, "tokens": 4 * 5 + 16, "supervised_tokens": 20},
        },
        "dropped": {"too long": 3},
    }
    assert found.rows_of_share.sum() == 7


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    size=st.integers(1, 7),
    data=st.data(),
)
def test_any_rows_in_any_batches(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], size: int, data: st.DataObject
) -> None:
    masks = [data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)) for n in lengths]
    rows = [HandRow(row_id="r", ids=[7] * len(mask), mask=mask) for mask in masks]
    path = write_arrow(tmp_path_factory.mktemp("s") / "a.arrow", rows, rows_per_batch=size)
    found = read_statistics(path, {})
    assert found.tokens == sum(lengths)
    assert found.supervised_tokens == sum(map(sum, masks))
    assert found.find_length(0.5) == statistics.median_low(lengths)
    assert (found.find_length(0), found.find_length(1)) == (min(lengths), max(lengths))
    assert found.rows_of_share.sum() == found.rows_of_length.sum() == len(rows)
    supervised = [n for batch in read_batches(path) for n in batch.supervised.tolist()]
    assert supervised == list(map(sum, masks))


def test_no_row(tmp_path: Path) -> None:
    found = read_statistics(write_arrow(tmp_path / "a.arrow", []), {})
    assert found.make_document()["lengths"] == {"min": 0, "median": 0, "p95": 0, "max": 0}


def test_a_column_of_ids_as_domains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_DOMAINS", 4)
    rows = [make_hand_row(f"r{n}", "q", "a", domain=f"d{n % 9}") for n in range(18)]
    found = read_statistics(write_arrow(tmp_path / "a.arrow", rows), {})
    assert {name: each.rows for name, each in found.domains.items()} == {
        **dict.fromkeys(["d0", "d1", "d2", "d3"], 2),
        OTHERS: 10,
    }
    assert sum(each.tokens for each in found.domains.values()) == found.tokens
