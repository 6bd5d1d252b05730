"""The page holds what the data set holds, fetches nothing and runs nothing that a row says."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.encoding import read_tokenizer
from pipeline.data.plots import make_bars, make_bins, make_histogram
from pipeline.data.report import REPORT, Cleaning, Options, Split, make_page, read_cleaning, run
from pipeline.data.statistics import read_statistics
from tests.data.arrow_files import HandRow, make_hand_row, write_arrow
from tests.page.parsed_page import ParsedPage
from tests.tiny_text import write_tokenizer

pytestmark = pytest.mark.train

EVIL = "</script><script>alert(1)</script><!-- <img src=x onerror=y> & \u2028 \" ' \0"
NOTHING = Cleaning(dropped={}, examples={})


class Page(ParsedPage):
    """The page, and the rows that its script shows."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self.codes["script"][0])
        return rows


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("text")
    write_tokenizer(folder)
    return folder


def make_splits(folder: Path, train: list[HandRow], **dropped: int) -> list[Split]:
    held_out = [make_hand_row("h1", "a", "b", domain="letters")]
    splits = []
    for name, rows in (("train", train), ("held_out", held_out)):
        path = write_arrow(folder / f"{name}.arrow", rows)
        statistics = read_statistics(path, dropped if name == "train" else {})
        splits.append(Split(name=name, arrow=path, statistics=statistics))
    return splits


def test_rows_with_their_supervised_tokens(tmp_path: Path, text: Path) -> None:
    rows = [
        make_hand_row("r1", "1+1?", "é2", source="a.jsonl:2", domain="sums"),
        make_hand_row("r2", "[INST]", "x"),
    ]
    splits = make_splits(tmp_path, rows)
    found = Page(make_page(splits, NOTHING, read_tokenizer(text))).rows
    assert [row["id"] for row in found] == ["r1", "r2", "h1"]
    assert found[0] == {
        "id": "r1",
        "split": "train",
        "domain": "sums",
        "source": "a.jsonl:2",
        "tokens": 11,
        "supervised": 4,
        "texts": ["<s>", "[INST]", "1", "+", "1", "?", "[/INST]", "é", "2", "</s>"],
        "flags": "2200002113",
        "numbers": [0, 1, 2, 3, 4, 5, 6, 7, 9, 10],
    }
    # What is spelled like a control token is none.
    assert found[1]["flags"] == "22" + "0" * 6 + "213"


def test_nothing_is_fetched_and_nothing_of_a_row_is_run(tmp_path: Path, text: Path) -> None:
    rows = [make_hand_row(EVIL, EVIL, EVIL, source=EVIL, domain=EVIL)]
    splits = make_splits(tmp_path, rows, **{EVIL: 3})
    evil = Cleaning(dropped={EVIL: 2}, examples={EVIL: [EVIL]})
    parsed = Page(make_page(splits, evil, read_tokenizer(text)))
    assert parsed.tags.count("script") == 2
    parsed.require_nothing_foreign()
    row = parsed.rows[0]
    assert row["id"] == row["domain"] == EVIL
    assert "".join(row["texts"]) == f"<s>[INST]{EVIL}[/INST]{EVIL}</s>"


@settings(max_examples=30)
@given(question=st.text(max_size=30), answer=st.text(max_size=30))
def test_any_text_comes_through(
    tmp_path_factory: pytest.TempPathFactory, text: Path, question: str, answer: str
) -> None:
    rows = [make_hand_row("r", question, answer, domain=question)]
    page = make_page(make_splits(tmp_path_factory.mktemp("p"), rows), NOTHING, read_tokenizer(text))
    row = Page(page).rows[0]
    assert "".join(row["texts"]) == f"<s>[INST]{question}[/INST]{answer}</s>"
    assert row["domain"] == question


def test_many_rows_are_spread_and_long_ones_cut(tmp_path: Path, text: Path) -> None:
    rows = [make_hand_row(f"r{n}", "q", "a") for n in range(999)]
    rows.append(make_hand_row("long", "q" * 2000, "a" * 500))
    page = make_page(make_splits(tmp_path, rows), NOTHING, read_tokenizer(text))
    found = Page(page).rows
    assert len(found) == 201
    assert [row["id"] for row in found[:3]] == ["r0", "r5", "r10"]
    assert "201 of 1,001, spread evenly." in page
    splits = make_splits(tmp_path, rows[-1:])
    (long, _) = Page(make_page(splits, NOTHING, read_tokenizer(text))).rows
    assert long["tokens"] == 2504
    assert len(long["texts"]) == len(long["flags"]) == len(long["numbers"]) == 1001
    assert long["texts"][700] == "\n… 1,504 tokens not shown …\n"
    assert long["flags"] == "22" + "0" * 698 + "4" + "1" * 299 + "3"
    assert (long["numbers"][0], long["numbers"][-1]) == (0, 2503)


def test_numbers_and_reasons(tmp_path: Path, text: Path) -> None:
    rows = [make_hand_row("r", "q", "a" * n, domain=f"d{n}") for n in range(1, 20)]
    splits = make_splits(tmp_path, rows, too_long=7)
    document = {
        "dropped": {"exact duplicate": 1234, "never": 0},
        "sources": [{"examples": {"exact duplicate": ["a.jsonl:3"]}} for _ in range(2)],
    }
    (tmp_path / "cleaning.json").write_text(json.dumps(document))
    texts = Page(make_page(splits, read_cleaning(tmp_path), read_tokenizer(text)))
    said = " ".join(texts.texts)
    assert "1,234 (99%)" in said
    assert "exact duplicate" in said
    assert "too_long (train)" in said
    assert "a.jsonl:3, a.jsonl:3" in said
    assert "never" not in said
    assert "7 others" in said


def test_a_data_set_becomes_one_page(tmp_path: Path, text: Path) -> None:
    rows = [make_hand_row(f"r{n}", "q", "a", domain=f"d{n % 3}") for n in range(9)]
    dropped = {"longer than sequence_length": 5}
    splits = make_splits(tmp_path, rows, **dropped)
    told = {split.name: split.statistics.make_document() for split in splits}
    (tmp_path / "statistics.json").write_text(json.dumps(told))
    made = {"text": text, "dataset": tmp_path, "rows": tmp_path}
    pages = []
    for name in ("one", "two"):
        out = tmp_path / name
        out.mkdir()
        run(made, Options(), out)
        pages.append((out / REPORT).read_text(encoding="utf-8"))
    assert pages == [make_page(splits, NOTHING, read_tokenizer(text))] * 2
    assert "longer than sequence_length (train)" in pages[0]


def test_bars_are_as_high_as_their_counts() -> None:
    svg = make_histogram("Tokens & more", ["1", "2", "3"], [0, 5, 10], "rows")
    assert "Tokens &amp; more" in svg
    assert [height in svg for height in ('height="0.0"', 'height="53.0"', 'height="106.0"')] == [
        True,
        True,
        True,
    ]
    assert "<title>3: 10 rows</title>" in svg


def test_bars_with_names_are_ordered_and_summed_up() -> None:
    svg = make_bars("Domains", {f"d{n:02}": n for n in range(1, 15)} | {"x" * 80: 99}, "tokens")
    assert svg.count("<rect") == 13
    assert svg.index("x" * 51 + "…") < svg.index(">d14<") < svg.index(">3 others<")
    assert ">6 (3%)<" in svg
    assert "no tokens" in make_bars("Domains", {}, "tokens")


@given(st.lists(st.integers(0, 9), max_size=3000))
def test_bins_hold_every_row(counts: list[int]) -> None:
    labels, found = make_bins(counts)
    assert sum(found) == sum(counts)
    assert len(labels) == len(found) <= 40
