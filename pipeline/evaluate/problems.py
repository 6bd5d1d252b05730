"""Held-out rows and the user's own files -> the problems that are asked, each with its system
prompt and how its answer is compared.

Standard library alone. A model is judged as it was taught: what stands before a row's question is
asked with it. An `Exam` is a JSON Lines file of the user's; its digest stands in the key, so that
what was planned is what is asked.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import StageError
from pipeline.log import say

HELD_OUT = "held_out.jsonl"
_TRAIN = "train.jsonl"


@dataclass(frozen=True, kw_only=True)
class Problem:
    """`system` is "" where the row has no system prompt, `exam` where it is a held-out row; `form`
    is one of grade's."""

    row_id: str
    problem: str
    solution: str
    system: str = ""
    domain: str = ""
    form: str = "exact"
    exam: str = ""

    def list_turns(self) -> list[tuple[str, str]]:
        """Return role and text of each turn that is asked."""
        system = [("system", self.system)] if self.system else []
        return [*system, ("user", self.problem)]


@dataclass(frozen=True, kw_only=True)
class Exam:
    """A file of the user's: names of the columns that hold the problem, the solution and, where it
    is there, the domain; of `problems` the first so many are asked, of 0 all."""

    name: str
    sha256: str
    problem: str
    solution: str
    domain: str
    system: str
    form: str
    problems: int


def make_exam_label(number: int) -> str:
    """Return the input of the stage where the exam of that number, from 1 on, lies."""
    return f"exam-{number}"


def write_exam(exam: Exam) -> str:
    """Return the exam's JSON text."""
    return json.dumps(vars(exam), ensure_ascii=False, sort_keys=True)


def read_asked(
    inputs: Mapping[str, Path], count: int, *, form: str, exams: Sequence[str]
) -> list[Problem]:
    """Return the first `count` held-out problems, then those of each exam, whose text
    `write_exam` wrote."""
    found = read_problems(inputs["rows"] / HELD_OUT, count, form) if count else []
    for number, text in enumerate(exams, start=1):
        exam = Exam(**json.loads(text))
        asked = read_exam(exam, inputs[make_exam_label(number)])
        if seen := count_seen(inputs["rows"] / _TRAIN, asked):
            say(f"note: {seen} of {len(asked)} problems of {exam.name} were trained on")
        found += asked
    return found


def read_problems(path: Path, count: int, form: str = "exact") -> list[Problem]:
    """Return the first `count` held-out problems.

    Raises StageError for a row that is no JSON object with id, problem and solution, and when there
    are fewer rows.
    """
    with path.open("rb") as rows:
        # Split at \n alone; str.splitlines would also cut a text at U+2028.
        lines = [line for line, _ in zip(rows, range(count), strict=False)]
    if len(lines) < count:
        raise StageError(
            "there are fewer held-out problems than the evaluation asks",
            on=f"{path.name}, {len(lines)} rows",
            why=f"[evaluate] problems is {count}",
            then="lower [evaluate] problems, or raise [dataset] held_out",
        )
    return [_parse_problem(line, number, path, form) for number, line in enumerate(lines, 1)]


def _parse_problem(line: bytes, number: int, path: Path, form: str) -> Problem:
    try:
        row = json.loads(line)
        found = [row[key] for key in ("id", "problem", "solution")]
        system, domain = _read_system(row), str(row.get("domain", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        found, system, domain = [], "", ""
    if not found or not all(isinstance(each, str) and each for each in found):
        raise StageError(
            "a held-out row cannot be asked and graded",
            on=f"{path.name}, line {number}",
            why="it has no problem or solution, as raw text, or one of them is empty",
            then="correct the row in the data set; or lower [evaluate] problems to those rows that"
            " can be asked, which come first, or to 0",
        )
    row_id, problem, solution = found
    made = Problem(row_id=row_id, problem=problem, solution=solution, form=form)
    return replace(made, system=system, domain=domain)


def _read_system(row: dict[str, Any]) -> str:
    turns = row.get("messages", [])
    return str(turns[0]["content"]) if turns and turns[0]["role"] == "system" else ""


def read_exam(exam: Exam, path: Path) -> list[Problem]:
    """Return the exam's problems, with their lines' numbers as ids.

    Raises StageError when the file is not the one that was planned or holds no problem, and for a
    line that is no JSON object with a problem and a solution.
    """
    content = path.read_bytes()
    if (digest := hashlib.sha256(content).hexdigest()) != exam.sha256:
        why = f"its sha256 is {digest}, planned was {exam.sha256}: it changed meanwhile"
        raise _bad_exam("the problems are not those that were planned", exam, why, "build again")
    lines = [
        (number, line)
        for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1)
        if line.strip()
    ]
    asked = lines[: exam.problems] if exam.problems else lines
    if not asked or len(asked) < exam.problems:
        why = f"it has {len(lines)} lines, and {exam.problems or 'at least one'} are asked for"
        then = "bring more, or correct [[evaluate.rows]] problems"
        raise _bad_exam("there are too few problems", exam, why, then)
    return [_parse_line(line, number, exam) for number, line in asked]


def _parse_line(line: bytes, number: int, exam: Exam) -> Problem:
    try:
        row = json.loads(line)
        # Numbers are solutions, too; true and lists are none.
        problem, solution = (
            str(value) if type(value := row[name]) in (str, int, float) else ""
            for name in (exam.problem, exam.solution)
        )
        domain = row.get(exam.domain, "")
        f"{problem}{solution}{domain}".encode()  # a lone surrogate is no text
        why = "" if problem and solution else "its problem or its solution is empty or no text"
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        why = f"it is no JSON object: {error}"
    except KeyError as error:
        why = f"it has no {error}"
    if why:
        then = "correct that line, or [[evaluate.rows]] problem and solution, its columns' names"
        raise _bad_exam("a problem cannot be asked and graded", exam, why, then, line=number)
    return Problem(
        row_id=f"{exam.name}:{number}",
        problem=problem,
        solution=solution,
        system=exam.system,
        domain=domain if isinstance(domain, str) else "",
        form=exam.form,
        exam=exam.name,
    )


def _bad_exam(what: str, exam: Exam, why: str, then: str, *, line: int = 0) -> StageError:
    on = f"[[evaluate.rows]] {exam.name}" + (f", line {line}" if line else "")
    return StageError(what, on=on, why=why, then=then)


def count_seen(train: Path, problems: Sequence[Problem]) -> int:
    """Return how many of the problems a training row asks in the same words."""
    asked = {_normalise(each.problem) for each in problems}
    seen = asked.intersection(map(_normalise, _read_questions(train)))
    return sum(_normalise(each.problem) in seen for each in problems)


def _read_questions(train: Path) -> Iterator[str]:
    with train.open("rb") as lines:
        for line in lines:
            for turn in json.loads(line).get("messages", []):
                if turn["role"] == "user":
                    yield turn["content"]


def _normalise(text: str) -> str:
    return " ".join(text.split()).casefold()
