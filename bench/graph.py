"""`python -m bench.graph STORE COUNT`: build the graph of a store that holds all of it.

The graph: one root and COUNT - 1 artifacts made from it, over the demonstration's own stages. This
is timed: no more is imported here than a build imports.
"""

import sys
from pathlib import Path

from pipeline.artifact.rule import Rule
from pipeline.artifact.store import open_store
from pipeline.errors import StoreError
from pipeline.estimate.estimate import estimate
from pipeline.log import start_log
from pipeline.project import RECIPES, Project
from pipeline.recipe.recipe import read_recipe

_STAGES = (
    ("train", "demo.base"),
    ("train", "demo.rows"),
    ("convert", "checkpoint.text"),
    ("train", "data.dataset"),
    ("train", "sft.training"),
    ("convert", "checkpoint.merged"),
    ("convert", "checkpoint.gguf"),
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


def open_graph(root: Path, count: int) -> Project:
    """Return the graph as a project of the demonstration's recipe."""
    recipe = read_recipe(RECIPES / "demo.toml")
    return Project(
        recipe=recipe,
        estimate=estimate(recipe),
        rules=tuple(make_graph(count)),
        store=open_store(root),
    )


def build_nothing(root: Path, count: int) -> None:
    """Build the graph of a store that holds all of it; StoreError when it does not."""
    project = open_graph(root, count)
    names = [rule.name for rule in project.rules]
    if len(project.build(names)) != count:
        raise StoreError(
            "there is something to build",
            on=str(root),
            why="the graph is not sealed there, or the sources have changed since",
            then="run `python -m bench.engine` again",
        )


if __name__ == "__main__":
    start_log()
    build_nothing(Path(sys.argv[1]), int(sys.argv[2]))
