"""Stores that hold all that will be asked of them: sealed under the real keys, without a stage.

`python -m bench.stores STORE OUT` seals the directory OUT as the graph's root.
"""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.graph import open_graph
from pipeline.artifact.build import make_manifest
from pipeline.artifact.rule import Rule
from pipeline.artifact.seal import seal
from pipeline.artifact.steps import Step
from pipeline.artifact.store import Artifact, Store, open_store
from pipeline.artifact.workspace import make_workspace
from pipeline.engine.venv_engine import make_engine
from pipeline.project import RECIPES, Project, read_project

DEMO = RECIPES / "demo.toml"
_SMALL_BYTES = 16
# What a build's last table reads of the artifacts of these names.
_SCORE = {"correct": 1, "total": 1}
_RESULTS = {
    "adapter": ("metrics.json", {"loss_before": 2.0, "loss_after": 1.0, "steps": 1}),
    "answers-checkpoint": ("scores.json", {"base": _SCORE, "distilled": _SCORE}),
    "answers": ("scores.json", {"BF16": _SCORE, "Q8_0": _SCORE, "Q4_K_M": _SCORE}),
}


def seal_graph(root: Path, *, count: int, size_bytes: int) -> None:
    """Make a store that holds the whole graph; the root's one file is sparse."""

    def write(rule: Rule, out: Path) -> None:
        path = out / "data.bin"
        path.touch()
        os.truncate(path, size_bytes if rule.name == "root" else _SMALL_BYTES)

    _seal_all(open_graph(root, count), write)


def seal_demo(root: Path) -> None:
    """Make a store that holds all that the demonstration's recipe asks for, in small."""

    def write(rule: Rule, out: Path) -> None:
        name, document = _RESULTS.get(rule.name, ("data.json", {}))
        (out / name).write_text(json.dumps(document), encoding="utf-8")

    _seal_all(read_project(DEMO, open_store(root)), write)


def seal_linked(source: Path, root: Path) -> Path:
    """Seal the same files in a new store, which costs no second copy; return the artifact."""
    with make_workspace(root.with_name("linked"), "linked") as work:
        out = work / "out"
        out.mkdir()
        for path in source.iterdir():
            (out / path.name).hardlink_to(path)
        return seal_directory(root, out).path


def seal_directory(root: Path, out: Path) -> Artifact:
    """Seal the directory as the graph's root, in a store without one."""
    project = open_graph(root, 1)
    (step,) = project.make_steps(["root"])
    return _seal(step, out, project.store, {})


def _seal_all(project: Project, write: Callable[[Rule, Path], None]) -> None:
    sealed: dict[str, Artifact] = {}
    for step in project.make_steps([rule.name for rule in project.rules]):
        with make_workspace(project.store.workspaces, step.rule.name) as work:
            out = work / "out"
            out.mkdir()
            write(step.rule, out)
            sealed[step.rule.name] = _seal(step, out, project.store, sealed)


def _seal(step: Step, out: Path, store: Store, sealed: Mapping[str, Artifact]) -> Artifact:
    manifest = make_manifest(step, sealed, make_engine())
    return seal(store, out, key=step.key, name=step.rule.name, manifest=manifest, seconds=0.0)


if __name__ == "__main__":
    seal_directory(Path(sys.argv[1]), Path(sys.argv[2]))
