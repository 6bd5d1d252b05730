"""checkpoints.json: the checkpoints of a training run and how each does on the held-out rows.

Standard library alone: the choice of a checkpoint needs nothing else.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

LIST = "checkpoints.json"
HARDWARE = "hardware.json"


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A checkpoint on the held-out rows: mean loss in nats and share of tokens that are right."""

    step: int
    epoch: float
    loss: float
    accuracy: float

    def is_better_than(self, other: "Evaluation", by: str) -> bool:
        """Return whether it is strictly better by "loss" or "accuracy"."""
        assert by in ("loss", "accuracy"), by
        return self.loss < other.loss if by == "loss" else self.accuracy > other.accuracy


def name_checkpoint(step: int) -> str:
    """Return the name of the directory that holds the weights after that step."""
    return f"step-{step:06d}"


def find_best(evaluations: Sequence[Evaluation], by: str) -> Evaluation:
    """Return the best; the earliest of equals."""
    best = evaluations[0]
    for each in evaluations[1:]:
        if each.is_better_than(best, by):
            best = each
    return best


def write_list(evaluations: Sequence[Evaluation], directory: Path) -> None:
    """Write checkpoints.json, in the order of the steps."""
    text = json.dumps([asdict(each) for each in evaluations], indent=1) + "\n"
    (directory / LIST).write_text(text, encoding="utf-8")


def read_list(directory: Path) -> list[Evaluation]:
    """Return what checkpoints.json says."""
    entries = json.loads((directory / LIST).read_text(encoding="utf-8"))
    return [Evaluation(**entry) for entry in entries]
