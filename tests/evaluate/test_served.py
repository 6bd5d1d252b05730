"""Held-out problems are asked through the API, kept in order, graded and written."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import StageError
from pipeline.evaluate import served
from pipeline.evaluate.problems import read_problems
from tests.serve.installed_fake import install_fake_server, write_behaviour

pytestmark = pytest.mark.serve

ROWS = [
    {"id": f"row-{n}", "problem": f"What is {n} + 1?", "thinking": "x", "solution": str(n + 1)}
    for n in range(6)
]
OPTIONS = served.Options(
    types=("BF16", "Q8_0"),
    problems=5,
    max_tokens=16,
    temperature=0.0,
    seed=1,
    parallel=4,
    threads=1,
)


def write_rows(folder: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    folder.mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "held_out.jsonl").write_text(lines)
    return folder


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Rows and two models: one is right, one is wrong once and splits its thoughts off."""
    install_fake_server(tmp_path / "prefix", monkeypatch)
    right = {
        row["problem"]: {"content": f"<think>\nx\n</think>\n{row['solution']}"} for row in ROWS
    }
    split = {
        row["problem"]: {"reasoning_content": "x\n", "content": row["solution"]} for row in ROWS
    }
    split[ROWS[2]["problem"]] = {"content": "<think>\nx"}
    slow = ROWS[0]["problem"]
    write_behaviour(tmp_path / "bf16" / "model.gguf", answers=right, slow=slow)
    write_behaviour(tmp_path / "q8" / "model.gguf", answers=split, slow=slow)
    return {
        "rows": write_rows(tmp_path / "rows", ROWS),
        "BF16": tmp_path / "bf16",
        "Q8_0": tmp_path / "q8",
    }


def test_scores_and_answers(inputs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    served.run(inputs, OPTIONS, out)
    assert json.loads((out / "scores.json").read_text()) == {
        "BF16": {"correct": 5, "total": 5},
        "Q8_0": {"correct": 4, "total": 5},
    }
    lines = [json.loads(line) for line in (out / "answers-Q8_0.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [row["id"] for row in ROWS[:5]]
    assert lines[1] == {
        "id": "row-1",
        "answer": "2",
        "correct": True,
        "text": "<think>\nx\n</think>\n2",
    }
    assert lines[2] == {"id": "row-2", "answer": None, "correct": False, "text": "<think>\nx"}


def test_a_problem_is_asked_with_its_rows_system_prompt(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": ROWS[0]["problem"]},
        {"role": "assistant", "content": "1"},
    ]
    rows = write_rows(tmp_path / "taught", [{**ROWS[0], "messages": turns}, ROWS[1]])
    answers = {
        f"Be brief. | {ROWS[0]['problem']}": {"content": "1"},
        ROWS[1]["problem"]: {"content": "2"},
    }
    write_behaviour(inputs["BF16"] / "model.gguf", answers=answers)
    (tmp_path / "out").mkdir()
    options = replace(OPTIONS, types=("BF16",), problems=2)
    served.run({**inputs, "rows": rows}, options, tmp_path / "out")
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores == {"BF16": {"correct": 2, "total": 2}}


def test_a_problem_that_the_server_refuses_is_named(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    write_behaviour(
        inputs["BF16"] / "model.gguf",
        refused=[ROWS[3]["problem"]],
        answers={row["problem"]: {"content": "1"} for row in ROWS},
    )
    (tmp_path / "out").mkdir()
    with pytest.raises(StageError, match="exceeds the context size") as error:
        served.run(inputs, OPTIONS, tmp_path / "out")
    assert error.value.on == "row-3"


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
    path.write_text(json.dumps(ROWS[0]) + "\n" + line + "\n")
    with pytest.raises(StageError, match=words) as error:
        read_problems(path, 2)
    assert error.value.on == "held_out.jsonl, line 2"


def test_too_few_rows_are_an_error(tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "rows", ROWS[:2])
    with pytest.raises(StageError, match="fewer held-out problems"):
        read_problems(rows / "held_out.jsonl", 3)
