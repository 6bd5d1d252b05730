"""`python -m bench.graph STORE COUNT`: build the graph of a store that holds all of it.

The graph: one root and COUNT - 1 artifacts made from it, over the demonstration's own stages. This
is timed: no more is imported here than a build imports.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifact.build import build
from pipeline.artifact.rule import Rule
from pipeline.artifact.steps import Step, make_steps
from pipeline.artifact.store import Store, open_store
from pipeline.engine.image import IMAGES, make_environment_document
from pipeline.engine.venv_engine import make_engine
from pipeline.errors import StoreError
from pipeline.log import start_log

_STAGES = (
    ("train", "demo.base"),
    ("train", "demo.rows"),
    ("convert", "checkpoint.text"),
    ("train", "sft.dataset"),
    ("train", "sft.adapter"),
    ("convert", "checkpoint.merged"),
    ("convert", "checkpoint.gguf"),
    ("convert", "checkpoint.quantized"),
    ("serve", "evaluate.served"),
)


def make_graph(count: int) -> list[Rule]:
    """Return the rules: a root and what is made from it."""
    rules = []
    for number in range(count):
        image, stage = _STAGES[number % len(_STAGES)]
        rules.append(
            Rule(
                name=f"leaf{number}" if number else "root",
                image=image,
                stage=stage,
                options={"number": number},
                inputs={"root": "root"} if number else {},
            )
        )
    return rules


def make_all_steps(rules: Sequence[Rule], store: Store) -> list[Step]:
    """Return a step for every rule."""
    environments: dict[str, Mapping[str, Any]] = {
        image: make_environment_document(IMAGES[image]) for image in {each.image for each in rules}
    }
    return make_steps(rules, [rule.name for rule in rules], store, environments)


def build_nothing(root: Path, count: int) -> None:
    """Build the graph of a store that holds all of it; StoreError when it does not."""
    store = open_store(root)
    rules = make_graph(count)
    steps = make_all_steps(rules, store)
    if any(step.artifact is None for step in steps):
        raise StoreError(
            "there is something to build",
            on=str(root),
            why="the graph is not sealed there, or the sources have changed since",
            then="run `python -m bench.engine` again",
        )
    build(steps, [rule.name for rule in rules], store, make_engine())


if __name__ == "__main__":
    start_log()
    build_nothing(Path(sys.argv[1]), int(sys.argv[2]))
