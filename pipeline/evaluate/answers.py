"""What a model wrote -> graded, one line each in answers-<MODEL>.jsonl, and summed in scores.json.

Standard library alone. The lines stand in the problems' order; scores.json holds one object for
each model, in the order of asking, and each but the first is compared with the first.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.evaluate.grade import THINK_START, is_correct, read_answer, write_plain_marks
from pipeline.evaluate.problems import Problem
from pipeline.evaluate.score import Graded, make_scores
from pipeline.log import say


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a model wrote, in how many tokens; `finished` is false where it was stopped."""

    text: str
    tokens: int
    finished: bool


def open_block(text: str, prompt: str) -> str:
    """Return what was said with the think block that some templates begin in the prompt itself."""
    begun = write_plain_marks(prompt).rstrip().endswith(THINK_START)
    said = write_plain_marks(text)
    return f"{THINK_START}\n{said}" if begun and THINK_START not in said else said


def write_answers(
    path: Path, problems: Sequence[Problem], said: Sequence[Said], *, name: str
) -> list[Graded]:
    """Grade a model's answers, in the problems' order, write them, and return them graded."""
    graded = [_grade(p, each) for p, each in zip(problems, said, strict=True)]
    lines = [_make_line(p, each) for p, each in zip(problems, graded, strict=True)]
    path.write_bytes("".join(lines).encode("utf-8", "replace"))
    say(f"  {name}: {sum(each.correct for each in graded)} of {len(graded)} correct")
    return graded


def write_scores(path: Path, answers: Mapping[str, Sequence[Graded]]) -> None:
    """Write scores.json of every model's answers."""
    text = json.dumps(make_scores(answers), indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def _grade(problem: Problem, said: Said) -> Graded:
    return Graded(
        text=said.text,
        correct=is_correct(said.text, problem.solution, problem.form),
        domain=problem.domain,
        exam=problem.exam,
        tokens=said.tokens,
        finished=said.finished,
    )


def _make_line(problem: Problem, graded: Graded) -> str:
    line = {
        "id": problem.row_id,
        "problem": problem.problem,
        "solution": problem.solution,
        "answer": read_answer(graded.text),
        "correct": graded.correct,
        "finished": graded.finished,
        "tokens": graded.tokens,
        "text": graded.text,
    }
    return json.dumps(line, ensure_ascii=False) + "\n"
