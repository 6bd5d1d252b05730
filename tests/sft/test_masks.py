"""The view marks exactly the supervised tokens of the row that training reads."""

from pathlib import Path

import pytest

from pipeline.sft import masks
from pipeline.sft.chat import read_tokenizer

pytestmark = pytest.mark.train


@pytest.mark.parametrize("row", ["r3", "3"])
def test_a_row_is_shown_by_id_or_number(
    dataset: Path, text: Path, row: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert masks.main([str(dataset), str(text), row]) == 0
    head, view = capsys.readouterr().out.split("\n", 1)
    assert head.startswith("row r3: ")
    # The problem is not marked; every character of the answer is one token here, and is.
    answer = view.removeprefix("<s>[INST]3+3?[/INST]").replace("\n", "")
    assert answer.startswith("".join(f"⟦{c}⟧" for c in "<think>⏎+"))
    assert answer.endswith("".join(f"⟦{c}⟧" for c in "</think>⏎6") + "⟦</s>⟧")


def test_colours_on_a_terminal(dataset: Path, text: Path) -> None:
    _, row = masks.read_row(dataset / "train.arrow", "r3")
    view = masks.make_view(read_tokenizer(text), row, masks.COLOUR)
    assert "\x1b[32m</s>\x1b[0m" in view
    assert view.startswith("<s>[INST]3+3?[/INST]\x1b[32m<")


def test_no_such_row(dataset: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert masks.main([str(dataset), str(text), "r99"]) == 5
    assert "there is no such row" in capsys.readouterr().err
    assert masks.main([]) == 2
