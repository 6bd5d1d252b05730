"""held_out.jsonl -> the problems that are asked, each with its system prompt.

Standard library alone. A model is judged as it was taught: what stands before a row's question is
asked with it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import StageError


@dataclass(frozen=True, kw_only=True)
class Problem:
    """`system` is "" where the row has no system prompt."""

    row_id: str
    problem: str
    solution: str
    system: str = ""

    def list_turns(self) -> list[tuple[str, str]]:
        """Return role and text of each turn that is asked."""
        system = [("system", self.system)] if self.system else []
        return [*system, ("user", self.problem)]


def read_problems(path: Path, count: int) -> list[Problem]:
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
    return [_parse_problem(line, number, path) for number, line in enumerate(lines, 1)]


def _parse_problem(line: bytes, number: int, path: Path) -> Problem:
    try:
        row = json.loads(line)
        found = [row[key] for key in ("id", "problem", "solution")]
        system = _read_system(row)
    except (ValueError, KeyError, TypeError, AttributeError):
        found, system = [], ""
    if not found or not all(isinstance(each, str) and each for each in found):
        raise StageError(
            "a held-out row cannot be asked and graded",
            on=f"{path.name}, line {number}",
            why="it has no problem or solution, as raw text, or one of them is empty",
            then="correct the row in the data set; or lower [evaluate] problems to those rows that"
            " can be asked, which come first, or to 0",
        )
    return Problem(row_id=found[0], problem=found[1], solution=found[2], system=system)


def _read_system(row: dict[str, Any]) -> str:
    turns = row.get("messages", [])
    return str(turns[0]["content"]) if turns and turns[0]["role"] == "system" else ""
