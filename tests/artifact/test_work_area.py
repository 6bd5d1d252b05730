"""What a stage leaves for its next run: there after any end, gone when the artifact is sealed."""

import fcntl
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact.engine import Variation
from pipeline.artifact.gc import collect, find_garbage
from pipeline.artifact.publish import publish
from pipeline.artifact.rebuild import rebuild
from pipeline.artifact.rule import Rule
from pipeline.artifact.steps import make_steps
from pipeline.artifact.store import Store, open_store
from pipeline.artifact.work_area import open_work_area, remove_work_area
from pipeline.errors import CapacityError, StageError
from tests.artifact.small_build import (
    ENVIRONMENTS,
    HereEngine,
    build_small,
    make_rules,
    make_small_steps,
)

RULE = Rule(name="text", image="train", stage="demo.rows", options={}, resumes=True)


class CountingEngine(HereEngine):
    """A stage that leaves one more file in its work area at each run and fails until the third."""

    def __init__(self) -> None:
        self.found: list[list[str]] = []

    def run(
        self,
        image: str,
        job: dict[str, Any],
        *,
        work: Path,
        log: Path,
        variation: Variation | None = None,
    ) -> int:
        area = Path(job["work"])
        self.found.append(sorted(path.name for path in area.iterdir()))
        (area / f"step-{len(self.found)}").mkdir()
        Path(job["out"], "made").write_text("x")
        return 0 if len(self.found) >= 3 else 5


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def _fail(store: Store, engine: HereEngine, rule: Rule = RULE) -> None:
    with pytest.raises(StageError, match="nothing was stored"):
        build_small(store, [rule], ["text"], engine=engine)


def test_a_run_finds_what_the_ones_before_it_left_and_the_seal_ends_that(store: Store) -> None:
    engine = CountingEngine()
    _fail(store, engine)
    _fail(store, engine)
    build_small(store, [RULE], ["text"], engine=engine)
    assert engine.found == [[], ["step-1"], ["step-1", "step-2"]]
    assert list(store.work_areas.iterdir()) == []


def test_another_key_finds_nothing(store: Store) -> None:
    engine = CountingEngine()
    _fail(store, engine)
    _fail(store, engine, replace(RULE, options={"seed": 2}))
    assert engine.found == [[], []]


def test_a_rebuild_begins_with_nothing(store: Store) -> None:
    engine = CountingEngine()
    for _ in range(2):
        _fail(store, engine)
    sealed = build_small(store, [RULE], ["text"], engine=engine)
    (step,) = make_small_steps(store, [RULE])
    assert rebuild(step, sealed, store, engine) is None
    assert engine.found[-1] == []
    assert list(store.work_areas.iterdir()) == []


def test_only_a_stage_that_resumes_has_one(store: Store) -> None:
    seen = {}

    class LookingEngine(HereEngine):
        def run(self, image: str, job: dict[str, Any], **named: Any) -> int:
            seen.update(job)
            return 5

    _fail(store, LookingEngine(), replace(RULE, resumes=False))
    assert "work" not in seen
    assert not store.work_areas.exists()


def test_gc_leaves_what_a_recipe_or_a_maker_needs(store: Store) -> None:
    _fail(store, CountingEngine())
    (step,) = make_small_steps(store, [RULE])
    area = store.work_areas / step.directory
    assert find_garbage(store, {step.directory}).leftovers == ()
    with store.lock(step.key, "text"):
        collect(store, set())
    assert area.is_dir()
    whys = {path: why for path, why, _ in collect(store, set()).leftovers}
    assert whys[area] == "of a build that ended early"
    assert not area.exists()


def test_gc_takes_what_a_kill_left_after_the_seal(store: Store) -> None:
    engine = CountingEngine()
    for _ in range(2):
        _fail(store, engine)
    build_small(store, [RULE], ["text"], engine=engine)
    (step,) = make_small_steps(store, [RULE])
    (store.work_areas / step.directory).mkdir()
    collect(store, {step.directory})
    assert list(store.work_areas.iterdir()) == []


def test_where_locks_do_nothing_it_is_the_run_s_own(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "flock", lambda descriptor, operation: None)
    engine = CountingEngine()
    for _ in range(2):
        _fail(store, engine)
    build_small(store, [RULE], ["text"], engine=engine)
    assert engine.found == [[], [], []]
    assert not store.work_areas.exists()


def test_scratch_counts_as_needed(store: Store) -> None:
    greedy = replace(RULE, estimated_bytes=5, scratch_bytes=1 << 60)
    with pytest.raises(CapacityError) as caught:
        build_small(store, [greedy], ["text"], engine=CountingEngine())
    assert f"{(1 << 60) + 5:,} bytes needed" in caught.value.why


def test_a_name_is_given_when_all_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    sync, rename = os.fsync, Path.rename

    def note_sync(descriptor: int) -> None:
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    def note_rename(self: Path, target: Path) -> Path:
        done.append(f"rename {self.name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "rename", note_rename)
    (tmp_path / "step.tmp" / "model").mkdir(parents=True)
    (tmp_path / "step.tmp" / "model" / "weights").write_text("x")
    (tmp_path / "part.tmp").write_text("x")
    publish(tmp_path / "step.tmp", tmp_path / "step")
    assert done == ["weights", "model", "step.tmp", "rename step.tmp", tmp_path.name]
    done.clear()
    publish(tmp_path / "part.tmp", tmp_path / "part")
    assert done == ["part.tmp", "rename part.tmp", tmp_path.name]


def test_reports_are_kept_beside_the_log(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    (step,) = make_steps(make_rules(), ["base"], store, ENVIRONMENTS)
    for written in ("first", "second"):
        with store.lock(step.key, "base"):
            area = open_work_area(step, store, work=tmp_path)
            (area / "reports" / "tool").mkdir(parents=True)
            (area / "reports" / "tool" / "events").write_text(written)
            (area / "state").write_text("to go on from")
            remove_work_area(step, store)
        assert not area.exists()
        kept = store.reports_path(step.key, "base")
        assert [path.name for path in kept.rglob("*")] == ["tool", "events"]
        # A second run of the key, after gc say, writes over nothing.
        assert (kept / "tool" / "events").read_text() == "first"
