"""Held-out problems are asked through the API, kept in order, graded and written."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import StageError
from pipeline.evaluate import served
from tests.evaluate.exams import make_exam
from tests.serve.installed_fake import install_fake_server, write_behaviour

pytestmark = pytest.mark.serve

ROWS = [
    {"id": f"row-{n}", "problem": f"What is {n} + 1?", "thinking": "x", "solution": str(n + 1)}
    for n in range(6)
]
OPTIONS = served.Options(
    types=("BF16", "Q8_0"),
    problems=5,
    answer="exact",
    exams=(),
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
    split[ROWS[2]["problem"]] = {"content": "<think>\nx", "finish_reason": "length"}
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
    scores = json.loads((out / "scores.json").read_text())
    assert {name: (each["correct"], each["total"]) for name, each in scores.items()} == {
        "BF16": (5, 5),
        "Q8_0": (4, 5),
    }
    assert (scores["BF16"]["unfinished"], scores["Q8_0"]["unfinished"]) == (0, 1)
    assert scores["Q8_0"]["reasoning"]["well_formed"] == 4
    assert "compared" not in scores["BF16"]
    assert scores["Q8_0"]["compared"] == {
        "with": "BF16",
        "only_first": 1,
        "only_second": 0,
        "p_value": 1.0,
    }
    lines = [json.loads(line) for line in (out / "answers-Q8_0.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [row["id"] for row in ROWS[:5]]
    assert lines[1] == {
        "id": "row-1",
        "problem": "What is 1 + 1?",
        "solution": "2",
        "answer": "2",
        "correct": True,
        "finished": True,
        "tokens": 7,
        "text": "<think>\nx\n</think>\n2",
    }
    assert lines[2]["answer"] is None
    assert (lines[2]["correct"], lines[2]["finished"]) == (False, False)
    assert lines[2]["text"] == "<think>\nx"


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
    assert (scores["BF16"]["correct"], scores["BF16"]["total"]) == (2, 2)


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


def test_thinking_between_control_tokens_is_thinking(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    answers = {row["problem"]: {"content": f"[THINK]so 7[/THINK]{row['solution']}"} for row in ROWS}
    write_behaviour(inputs["BF16"] / "model.gguf", answers=answers)
    (tmp_path / "out").mkdir()
    served.run(inputs, replace(OPTIONS, types=("BF16",)), tmp_path / "out")
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert (scores["BF16"]["correct"], scores["BF16"]["reasoning"]["well_formed"]) == (5, 5)


def test_a_block_that_the_template_begins_is_part_of_the_answer(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    answers = {row["problem"]: {"content": f"so 7\n</think>\n{row['solution']}"} for row in ROWS}
    path = inputs["BF16"] / "model.gguf"
    for end, well_formed in (("<think>\n", 5), ("", 0)):
        write_behaviour(path, answers=answers, prompt_end=end)
        out = tmp_path / f"out-{well_formed}"
        out.mkdir()
        served.run(inputs, replace(OPTIONS, types=("BF16",)), out)
        score = json.loads((out / "scores.json").read_text())["BF16"]
        assert (score["correct"], score["reasoning"]["well_formed"]) == (5, well_formed)


def test_what_a_fault_left_unanswered_is_asked_again(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    write_behaviour(
        inputs["BF16"] / "model.gguf",
        answers={row["problem"]: {"content": row["solution"]} for row in ROWS},
        faults={ROWS[1]["problem"]: ["busy", "gone"], ROWS[2]["problem"]: ["gone"]},
    )
    (tmp_path / "out").mkdir()
    served.run(inputs, replace(OPTIONS, types=("BF16",)), tmp_path / "out")
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert (scores["BF16"]["correct"], scores["BF16"]["total"]) == (5, 5)


def test_problems_of_ones_own_are_asked_and_scored_by_file(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    mine = tmp_path / "mine.jsonl"
    asked = [
        {"question": "ducks?", "answer": "9 * 2 = 18\n#### 18", "domain": "farm"},
        {"question": ROWS[5]["problem"], "answer": 6},
    ]
    mine.write_text("\n".join(map(json.dumps, asked)))
    answers = {row["problem"]: {"content": "It is 1."} for row in ROWS}
    answers |= {
        "ducks?": {"content": "She makes $18."},
        ROWS[5]["problem"]: {"content": "It is 6.0."},
    }
    write_behaviour(inputs["BF16"] / "model.gguf", answers=answers)
    trained = {"messages": [{"role": "user", "content": f" {ROWS[5]['problem']}\n"}]}
    (inputs["rows"] / "train.jsonl").write_text(json.dumps(trained) + "\n")
    (tmp_path / "out").mkdir()
    exams = (make_exam(mine, problem="question", solution="answer"),)
    options = replace(OPTIONS, types=("BF16",), problems=2, answer="contains", exams=exams)
    served.run({**inputs, "exam-1": mine}, options, tmp_path / "out")
    score = json.loads((tmp_path / "out" / "scores.json").read_text())["BF16"]
    assert (score["correct"], score["total"]) == (3, 4)
    by_file = {name: (each["correct"], each["total"]) for name, each in score["exams"].items()}
    assert by_file == {"held out": (1, 2), "mine": (2, 2)}
    assert score["domains"]["farm"]["correct"] == 1
    lines = (tmp_path / "out" / "answers-BF16.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in lines] == ["row-0", "row-1", "mine:1", "mine:2"]
