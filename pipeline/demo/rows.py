"""Stage: teacher traces of the demonstration -> train.jsonl and held_out.jsonl.

Each line is a canonical row. No held-out problem is among the training rows, in either order of its
operands. Standard library only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.row import Message, Row, write_row
from pipeline.demo.problems import Problem, check_enough, make_held_out, make_training
from pipeline.log import say


@dataclass(frozen=True, kw_only=True)
class Options:
    seed: int
    digits: int
    rows: int
    held_out: int


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Write both files. Raises StageError when there are not enough different problems."""
    check_enough(options.digits, options.rows, options.held_out)
    held_out = make_held_out(options.seed, options.digits, options.held_out)
    training = make_training(options.seed, options.digits, options.rows, held_out)
    _write_rows(out / "train.jsonl", "train", training)
    _write_rows(out / "held_out.jsonl", "held-out", held_out)
    say(f"wrote {len(training)} traces and {len(held_out)} held-out problems")


def _write_rows(path: Path, prefix: str, problems: Sequence[Problem]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for number, problem in enumerate(problems):
            is_asked = prefix == "held-out"
            row = Row(
                id=f"{prefix}-{number:06d}",
                messages=(
                    Message(role="user", content=problem.question),
                    Message(role="assistant", content=problem.solution, thinking=problem.thinking),
                ),
                problem=problem.question if is_asked else None,
                solution=problem.solution if is_asked else None,
            )
            file.write(write_row(row) + "\n")
