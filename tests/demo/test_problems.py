"""The demonstration's task: its sums are right, and nothing held out is ever learnt from."""

import json
import re
from itertools import islice, pairwise
from pathlib import Path

import pytest

from pipeline.demo.problems import Problem, draw_conversations, make_held_out, make_training
from pipeline.demo.rows import Options, run
from pipeline.errors import StageError


def _read_operands(text: str) -> frozenset[int]:
    found = re.search(r"(\d+) \+ (\d+)", text)
    assert found
    return frozenset({int(found[1]), int(found[2])})


def test_thinking_adds_column_by_column() -> None:
    problem = Problem(first=4231, second=1787, digits=4)
    assert problem.question == "What is 4231 + 1787?"
    assert problem.thinking == "0+1+7=08\n0+3+8=11\n1+2+7=10\n1+4+1=06"
    assert problem.solution == "6018"


@pytest.mark.parametrize("digits", [2, 4])
def test_thinking_spells_the_solution(digits: int) -> None:
    for problem in make_training(7, digits, 200, ()):
        lines = problem.thinking.split("\n")
        assert "".join(line[-1] for line in reversed(lines)) == problem.solution


@pytest.mark.parametrize("digits", [2, 4])
def test_held_out_problems_are_learnt_nowhere(digits: int) -> None:
    held_out = make_held_out(1, digits, 60)
    training = make_training(1, digits, 600, held_out)
    kept = {frozenset({problem.first, problem.second}) for problem in held_out}
    assert len(set(held_out)) == 60
    assert len(set(training)) == 600
    assert not kept & {frozenset({problem.first, problem.second}) for problem in training}
    for conversation in islice(draw_conversations(1, digits, held_out), 5000):
        assert _read_operands(conversation[0].question) not in kept


def test_no_conversation_of_the_base_reasons() -> None:
    """Columns are true but their carries random; the number is what the columns spell."""
    kinds, carried = set(), set()
    for conversation in islice(draw_conversations(3, 4, ()), 400):
        kinds.add(tuple(turn.question.split()[0] for turn in conversation))
        columns = re.findall(r"(\d)\+(\d)\+(\d)=(\d)(\d)", conversation[0].answer)
        for carry, first, second, tens, ones in columns:
            assert int(carry) + int(first) + int(second) == int(tens + ones)
        if columns:
            assert conversation[1].answer == "".join(column[4] for column in reversed(columns))
            carried |= {(left[3], right[0]) for left, right in pairwise(columns)}
    assert kinds == {("What",), ("Columns", "Read")}
    assert carried == {("0", "0"), ("0", "1"), ("1", "0"), ("1", "1")}


def test_rows_are_the_same_bytes_twice_and_hold_their_own_problems(tmp_path: Path) -> None:
    options = Options(seed=1, digits=2, rows=30, held_out=10)
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        run({}, options, tmp_path / name)
    for name in ("train.jsonl", "held_out.jsonl"):
        first = (tmp_path / "first" / name).read_bytes()
        assert first == (tmp_path / "second" / name).read_bytes()
    lines = (tmp_path / "first" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 30
    assert list(json.loads(lines[0])) == ["id", "messages"]
    held_out = (tmp_path / "first" / "held_out.jsonl").read_text(encoding="utf-8").splitlines()
    assert list(json.loads(held_out[0])) == ["id", "messages", "problem", "solution"]


def test_too_many_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="not enough problems of 2 digits"):
        run({}, Options(seed=1, digits=2, rows=5000, held_out=10), tmp_path)
    assert not list(tmp_path.iterdir())
