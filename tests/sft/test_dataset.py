"""The Arrow files hold exactly the rendered rows; long rows are counted, never cut."""

import json
from pathlib import Path

import datasets
import pytest

from pipeline.errors import StageError
from pipeline.sft import dataset as stage
from pipeline.sft.rows import Row, write_rows
from tests.tiny_text import BOS, END_INST, EOS, INST, byte_ids

pytestmark = pytest.mark.train

SHORT = Row("short", "a?", "t", "b")  # 6 + 19 tokens: see `expected`
LONG = Row("long", "a?", "t" * 40, "b")


def expected(row: Row) -> tuple[list[int], list[int]]:
    prompt = [BOS, INST, *byte_ids(row.problem), END_INST]
    answer = [*byte_ids(f"<think>\n{row.thinking}\n</think>\n{row.solution}"), EOS]
    return prompt + answer, [0] * len(prompt) + [1] * len(answer)


def make(folder: Path, text: Path, train: list[Row], limit: int) -> Path:
    for name in ("rows", "out"):
        (folder / name).mkdir()
    write_rows(folder / "rows/train.jsonl", train)
    write_rows(folder / "rows/held_out.jsonl", [SHORT])
    inputs = {"text": text, "rows": folder / "rows"}
    stage.run(inputs, stage.Options(sequence_length=limit), folder / "out")
    return folder / "out"


def test_every_token_of_every_row(tmp_path: Path, text: Path) -> None:
    out = make(tmp_path, text, [SHORT, LONG], 100)
    assert sorted(p.name for p in out.iterdir()) == [
        "held_out.arrow",
        "statistics.json",
        "train.arrow",
    ]
    table = datasets.Dataset.from_file(str(out / "train.arrow"))
    assert table["row_id"][:] == ["short", "long"]
    for row, found in zip((SHORT, LONG), table, strict=True):
        assert (found["input_ids"], found["completion_mask"]) == expected(row)
    assert str(table.features["input_ids"].feature.dtype) == "int32"
    assert str(table.features["completion_mask"].feature.dtype) == "int8"


def test_a_row_that_is_too_long_is_counted(tmp_path: Path, text: Path) -> None:
    length = len(expected(SHORT)[0])
    out = make(tmp_path, text, [LONG, SHORT], length)
    summary = json.loads((out / "statistics.json").read_text())["train"]
    assert summary == {
        "rows": 1,
        "dropped": {"longer than sequence_length": 1},
        "tokens": length,
        "supervised_tokens": length - 5,
        "lengths": {"min": length, "median": length, "max": length},
    }


def test_nothing_fits(tmp_path: Path, text: Path) -> None:
    with pytest.raises(StageError, match="no train row is left") as caught:
        make(tmp_path, text, [SHORT, LONG], 8)
    assert f"shortest has {len(expected(SHORT)[0])} tokens" in caught.value.why


def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, text: Path) -> None:
    with pytest.raises(StageError, match="control token") as caught:
        make(tmp_path, text, [SHORT, Row("bad", "[INST]", "t", "b")], 100)
    assert "row bad (train.jsonl:2)" in caught.value.on


def test_the_same_bytes_twice(tmp_path: Path, text: Path) -> None:
    outs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        outs.append(make(tmp_path / name, text, [SHORT, LONG], 100))
    for path in outs[0].iterdir():
        assert path.read_bytes() == (outs[1] / path.name).read_bytes()
