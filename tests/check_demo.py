"""`python -m tests.check_demo`: what `make demo` left in out/demo keeps its promise.

The base answers under 10 % of at least 400 held-out problems, the distilled model at least 95 %,
each GGUF within one point of it, and no training row holds a problem that is asked.
"""

import json
import sys
from pathlib import Path

from pipeline.artifact.key import REPOSITORY

_DEMO = REPOSITORY / "out" / "demo"
_TYPES = {"BF16", "Q8_0", "Q4_K_M"}


def _read_percent(path: Path) -> dict[str, float]:
    scores = json.loads(path.read_text(encoding="utf-8"))
    assert all(score["total"] >= 400 for score in scores.values()), "too few problems were asked"
    return {name: 100 * score["correct"] / score["total"] for name, score in scores.items()}


def _read_problems(name: str) -> set[str]:
    lines = (_DEMO / "rows" / name).read_text(encoding="utf-8").splitlines()
    return {json.loads(line)["problem"] for line in lines}


def main() -> None:
    """Raise AssertionError when a promise is broken."""
    before_export = _read_percent(_DEMO / "answers-checkpoint" / "scores.json")
    served = _read_percent(_DEMO / "answers" / "scores.json")
    assert before_export["base"] < 10, before_export
    assert before_export["distilled"] >= 95, before_export
    assert set(served) == _TYPES, served
    for name, percent in served.items():
        assert abs(percent - before_export["distilled"]) <= 1, (name, percent, before_export)
    assert not _read_problems("train.jsonl") & _read_problems("held_out.jsonl")
    sys.stdout.write("the demonstration keeps its promise\n")


if __name__ == "__main__":
    main()
