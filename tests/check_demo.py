"""`python -m tests.check_demo [STORE...]`: what `make demo` left in each store keeps its promise.

The base answers under 10 % of at least 400 held-out problems, the distilled model at least 95 %,
each GGUF within one point of it, and no training row holds a problem that is asked. Every store,
whichever engine filled it, holds the same keys with the same bytes.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.store import Store, open_store

_TYPES = {"BF16", "Q8_0", "Q4_K_M"}


def _read_percent(path: Path) -> dict[str, float]:
    scores = json.loads(path.read_text(encoding="utf-8"))
    assert all(score["total"] >= 400 for score in scores.values()), "too few problems were asked"
    return {name: 100 * score["correct"] / score["total"] for name, score in scores.items()}


def _read_problems(path: Path) -> set[str]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {turn["content"] for row in rows for turn in row["messages"] if turn["role"] == "user"}


def _check(demo: Path) -> None:
    before_export = _read_percent(demo / "answers-checkpoint" / "scores.json")
    served = _read_percent(demo / "answers" / "scores.json")
    assert before_export["base"] < 10, before_export
    assert before_export["distilled"] >= 95, before_export
    assert set(served) == _TYPES, served
    for name, percent in served.items():
        assert abs(percent - before_export["distilled"]) <= 1, (name, percent, before_export)
    rows = demo / "rows"
    assert not _read_problems(rows / "train.jsonl") & _read_problems(rows / "held_out.jsonl")


def _read_digests(store: Store) -> dict[str, str]:
    return {each.path.name: each.manifest.content_sha256 for each in store.read_all()[0]}


def main(argv: Sequence[str]) -> None:
    """Raise AssertionError when a promise is broken."""
    stores = [open_store(Path(root)) for root in (str(REPOSITORY / "store"), *argv)]
    for store in stores:
        _check(store.out / "demo")
        assert _read_digests(store) == _read_digests(stores[0]), f"{store.root} holds other bytes"
    sys.stdout.write("the demonstration keeps its promise\n")


if __name__ == "__main__":
    main(sys.argv[1:])
