"""The build: what is missing, in order, each once; a failure stores nothing.

The stage is a real one of the standard library alone (`demo.rows`), run in a real process by an
engine whose environment is this very Python.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact import build as builder
from pipeline.artifact.engine import Variation
from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.manifest import hash_file
from pipeline.artifact.rule import Digest, Rule
from pipeline.artifact.store import Artifact, Store, open_store, remove_tree
from pipeline.demo.rows import Options, run
from pipeline.errors import CapacityError, StageError, UsageError

_ENVIRONMENTS = {"train": Digest("0" * 64)}


class HereEngine:
    """Runs a job document with this Python; counts the jobs."""

    name = "here"

    def __init__(self) -> None:
        self.jobs: list[str] = []

    def prepare(self, images: Collection[str]) -> None:
        self.images = images

    def count_missing_bytes(self, images: Collection[str]) -> tuple[Path, int]:
        return Path("/"), 0

    def run(
        self,
        image: str,
        job: dict[str, Any],
        *,
        work: Path,
        log: Path,
        variation: Variation | None = None,
    ) -> int:
        self.jobs.append(job["stage"])
        document = work / "job.json"
        document.write_text(json.dumps(job))
        argv = [sys.executable, "-m", "pipeline.job", str(document)]
        with log.open("ab") as file:
            return subprocess.run(argv, cwd=REPOSITORY, stderr=file, check=False).returncode

    def interact(self, image: str, argv: Sequence[str]) -> int:
        raise NotImplementedError


@cache
def _read_digest(seed: int) -> str:
    """Return the sha256 of the file that the first rule will make."""
    with tempfile.TemporaryDirectory() as out:
        run({}, Options(seed=seed, digits=2, rows=30, held_out=4), Path(out))
        return hash_file(Path(out, "train.jsonl"))


def _make_rules(*, seed: int = 1, file: str = "train.jsonl", held_out: int = 5) -> tuple[Rule, ...]:
    made = Rule(
        name="base",
        image="train",
        stage="demo.rows",
        options={"seed": seed, "digits": 2, "rows": 30, "held_out": 4},
    )
    split = Rule(
        name="rows",
        image="train",
        stage="sft.rows",
        options={
            "sha256": _read_digest(seed),
            "columns": ("problem", "thinking", "solution"),
            "held_out": held_out,
            "seed": 1,
        },
        inputs={"source": "base"},
        locations={"file": file},
    )
    return made, split


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def _build(store: Store, rules: Sequence[Rule], engine: HereEngine) -> dict[str, Artifact]:
    steps = builder.make_steps(rules, ["rows"], store, _ENVIRONMENTS)
    return builder.build(steps, ["rows"], store, engine)


def test_builds_in_order_and_then_nothing(store: Store) -> None:
    engine = HereEngine()
    first = _build(store, _make_rules(), engine)
    assert engine.jobs == ["demo.rows", "sft.rows"]
    assert _build(store, _make_rules(), engine) == first
    assert len(engine.jobs) == 2


def test_a_changed_option_builds_only_what_depends_on_it(store: Store) -> None:
    engine = HereEngine()
    before = _build(store, _make_rules(), engine)
    after = _build(store, _make_rules(held_out=6), engine)
    assert engine.jobs == ["demo.rows", "sft.rows", "sft.rows"]
    assert before["base"] == after["base"]
    steps = builder.make_steps(_make_rules(seed=2), ["rows"], store, _ENVIRONMENTS)
    assert steps[0].why == "changed: options.seed"


def test_a_failing_stage_stores_nothing_and_the_rest_stays(store: Store) -> None:
    engine = HereEngine()
    with pytest.raises(StageError, match="nothing was stored"):
        _build(store, _make_rules(file="absent.jsonl"), engine)
    assert [artifact.name for artifact in store.read_all()[0]] == ["base"]
    assert list((store.root / ".tmp").iterdir()) == []


def test_an_input_that_is_not_needed_is_not_built_again(store: Store) -> None:
    engine = HereEngine()
    sealed = _build(store, _make_rules(), engine)
    remove_tree(sealed["base"].path)
    _build(store, _make_rules(), engine)
    assert len(engine.jobs) == 2


def test_an_unknown_artifact_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match="no rule makes"):
        builder.make_steps(_make_rules(), ["adaptor"], store, _ENVIRONMENTS)


def test_too_little_space_is_said_before_the_first_stage(store: Store) -> None:
    engine = HereEngine()
    rule = Rule(name="rows", image="train", stage="demo.rows", options={}, estimated_bytes=1 << 60)
    with pytest.raises(CapacityError, match="not enough disk"):
        _build(store, [rule], engine)
    assert engine.jobs == []


_BUILD_ONCE = """
import sys
from pathlib import Path
from pipeline.artifact.store import open_store
from pipeline.log import start_log
from tests.artifact.test_build import HereEngine, _build, _make_rules
start_log()
engine = HereEngine()
_build(open_store(Path(sys.argv[1])), _make_rules(), engine)
print(len(engine.jobs))
"""


def _start_builder(store: Store) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", _BUILD_ONCE, str(store.root)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_concurrent_builders_build_each_artifact_once(store: Store) -> None:
    builders = [_start_builder(store) for _ in range(6)]
    counts = [int(each.communicate()[0]) for each in builders]
    assert sum(counts) == 2
    assert len(store.read_all()[0]) == 2


def test_a_killed_builder_leaves_nothing_that_is_used(store: Store) -> None:
    undisturbed = open_store(store.root.parent / "undisturbed")
    expected = _build(undisturbed, _make_rules(), HereEngine())
    killed = _start_builder(store)
    deadline = time.monotonic() + 60
    while not list(store.root.glob(".tmp/*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    again = _build(store, _make_rules(), HereEngine())
    assert {name: each.manifest for name, each in again.items()} == {
        name: each.manifest for name, each in expected.items()
    }
    assert list((store.root / ".tmp").iterdir()) == []
