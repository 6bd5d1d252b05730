"""What is asked: held-out rows and files of the user's, or an error that names the line."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import StageError
from pipeline.evaluate.problems import Exam, Problem, count_seen, read_exam, read_problems
from tests.evaluate.exams import make_exam

ROW: Mapping[str, object] = {"id": "row-0", "problem": "What is 0 + 1?", "solution": "1"}


def test_problems_that_were_trained_on_are_counted(tmp_path: Path) -> None:
    train = tmp_path / "train.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": "What is\n1 + 1?"}]},
        {"text": "What is 2 + 2?"},
    ]
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    problems = [
        Problem(row_id=text, problem=text, solution="2")
        for text in ("what is 1 + 1? ", "What is 2 + 2?")
    ]
    assert count_seen(train, problems) == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"problem": "p"}', "it has no 'solution'"),
        (b'{"problem": "p", "solution": null}', "empty or no text"),
        (b'{"problem": "", "solution": "s"}', "empty or no text"),
        (b'{"problem": "\\ud800", "solution": "s"}', "surrogates not allowed"),
        (
            b'{"problem": "p", "solution": "s", "domain": "\\ud800"}',
            "surrogates not allowed",
        ),
        (b"[]", "it is no JSON object"),
        (b"\xff", "it is no JSON object"),
    ],
)
def test_a_line_of_ones_own_that_cannot_be_graded_is_named(
    tmp_path: Path, line: bytes, words: str
) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_bytes(b'{"problem": "p", "solution": 0}\n\n' + line)
    with pytest.raises(StageError) as error:
        read_exam(Exam(**json.loads(make_exam(mine))), mine)
    assert words in error.value.why
    assert error.value.on == "[[evaluate.rows]] mine, line 3"


def test_a_file_of_ones_own_that_changed_or_is_too_short_is_refused(tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    mine.write_text('{"problem": "p", "solution": "s"}\n')
    exam = Exam(**json.loads(make_exam(mine)))
    assert [each.row_id for each in read_exam(exam, mine)] == ["mine:1"]
    with pytest.raises(StageError, match="too few problems"):
        read_exam(replace(exam, problems=2), mine)
    mine.write_text('{"problem": "p", "solution": "t"}\n')
    with pytest.raises(StageError, match="not those that were planned"):
        read_exam(exam, mine)


_LINE = st.one_of(
    st.binary(max_size=20),
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda each: (
            st.lists(each, max_size=2)
            | st.dictionaries(st.sampled_from(["problem", "solution", "domain"]), each)
        ),
    ).map(lambda each: json.dumps(each).encode()),
)


@given(lines=st.lists(_LINE, max_size=3))
def test_any_file_is_problems_that_can_be_asked_or_an_error(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.jsonl"
        path.write_bytes(b"\n".join(lines))
        try:
            found = read_exam(Exam(**json.loads(make_exam(path))), path)
        except StageError:
            return
    assert found
    for each in found:
        assert each.problem.encode() and each.solution.encode()
        assert isinstance(each.domain, str)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"id": "a", "problem": "p", "thinking": "t"}', "cannot be asked and graded"),
        ('{"id": "a", "problem": "p", "solution": ""}', "cannot be asked and graded"),
        ("[]", "cannot be asked and graded"),
        ("{", "cannot be asked and graded"),
    ],
)
def test_a_row_that_cannot_be_graded_is_named(tmp_path: Path, line: str, words: str) -> None:
    path = tmp_path / "held_out.jsonl"
    path.write_text(json.dumps(ROW) + "\n" + line + "\n")
    with pytest.raises(StageError, match=words) as error:
        read_problems(path, 2)
    assert error.value.on == "held_out.jsonl, line 2"


def test_too_few_rows_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "held_out.jsonl").write_text(json.dumps(ROW) + "\n")
    with pytest.raises(StageError, match="fewer held-out problems"):
        read_problems(tmp_path / "held_out.jsonl", 3)
