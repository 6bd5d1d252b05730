"""`python -m tests.check_demo [STORE...]`: what `make demo` left in each store keeps its promise.

The base answers under 10 % of at least 400 held-out problems, the distilled model at least 95 %,
which no chance explains, each GGUF within one point of it, in well-formed reasoning. The narrower a
file, the farther it is from the 16-bit one, and the tokens that it would choose otherwise are fewer
than one in 100. No training row holds a problem that is asked. Every store, whichever engine filled
it, holds the same keys with the same bytes.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.store import Store, open_store

_TYPES = {"BF16", "Q8_0", "Q4_K_M"}


def _read_scores(path: Path) -> dict[str, dict[str, Any]]:
    scores: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    assert all(score["total"] >= 400 for score in scores.values()), "too few problems were asked"
    return scores


def _make_percent(scores: dict[str, dict[str, Any]], part: str = "correct") -> dict[str, float]:
    counts = {name: (score | score["reasoning"])[part] for name, score in scores.items()}
    return {name: 100 * count / scores[name]["total"] for name, count in counts.items()}


def _read_problems(path: Path) -> set[str]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {turn["content"] for row in rows for turn in row["messages"] if turn["role"] == "user"}


def _check(demo: Path) -> None:
    before_scores = _read_scores(demo / "answers-checkpoint" / "scores.json")
    served_scores = _read_scores(demo / "answers" / "scores.json")
    before_export, served = _make_percent(before_scores), _make_percent(served_scores)
    assert before_export["base"] < 10, before_export
    assert before_export["distilled"] >= 95, before_export
    assert set(served) == _TYPES, served
    for name, percent in served.items():
        assert abs(percent - before_export["distilled"]) <= 1, (name, percent, before_export)
    assert before_scores["distilled"]["compared"]["p_value"] < 1e-6, before_scores
    assert min(_make_percent(served_scores, "well_formed").values()) >= 99, served_scores
    _check_divergence(json.loads((demo / "divergence" / "divergence.json").read_text()))
    rows = demo / "rows"
    assert not _read_problems(rows / "train.jsonl") & _read_problems(rows / "held_out.jsonl")


def _check_divergence(found: dict[str, Any]) -> None:
    assert set(found) == _TYPES, found
    assert all(each["tokens"] >= 4000 for each in found.values()), found
    means = {name: found[name]["kl_divergence"]["mean"] for name in ("Q8_0", "Q4_K_M")}
    assert 0 < means["Q8_0"] < means["Q4_K_M"] < 0.01, found
    assert all(found[name]["flips"] < 0.01 for name in means), found


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
