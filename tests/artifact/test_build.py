"""The build: what is missing, in order, each once; a failure or a kill leaves nothing half-made."""

import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.artifact import seal
from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.rule import Rule
from pipeline.artifact.steps import make_steps
from pipeline.artifact.store import Store, open_store
from pipeline.artifact.verify import find_damage
from pipeline.artifact.workspace import remove_tree
from pipeline.errors import CapacityError, StageError, UsageError
from tests.artifact.small_build import (
    ENVIRONMENTS,
    build_small,
    count_runs,
    make_rules,
    read_bytes,
    start_builder,
    wait_for_processes,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store that was built without any trouble."""
    store = open_store(tmp_path_factory.mktemp("undisturbed") / "store")
    build_small(store)
    return store


def _read_workspaces(store: Store) -> list[Path]:
    return list(store.workspaces.glob("*"))


def test_builds_in_order_and_then_nothing(store: Store) -> None:
    first = build_small(store)
    assert list(first) == ["base", "rows"]
    assert count_runs(store) == 2
    assert build_small(store) == first
    assert count_runs(store) == 2


def test_a_changed_option_builds_only_what_depends_on_it(store: Store) -> None:
    before = build_small(store)
    after = build_small(store, make_rules(held_out=6))
    assert count_runs(store) == 3
    assert before["base"] == after["base"]


def test_a_failing_stage_stores_nothing_and_the_rest_stays(store: Store) -> None:
    with pytest.raises(StageError, match="nothing was stored"):
        build_small(store, make_rules(file="absent.jsonl"))
    assert [artifact.name for artifact in store.read_all()[0]] == ["base"]
    assert _read_workspaces(store) == []


def test_an_input_that_is_not_needed_is_not_built_again(store: Store) -> None:
    sealed = build_small(store)
    remove_tree(sealed["base"].path)
    build_small(store)
    assert count_runs(store) == 2


def test_an_unknown_artifact_is_refused(store: Store) -> None:
    with pytest.raises(UsageError, match="no rule makes"):
        make_steps(make_rules(), ["adaptor"], store, ENVIRONMENTS)


def test_too_little_space_is_said_before_the_first_stage_with_the_sum(store: Store) -> None:
    options = {"seed": 1, "digits": 2, "rows": 30, "held_out": 4}
    rules = [
        Rule(name=name, image="train", stage="demo.rows", options=options, estimated_bytes=size)
        for name, size in (("base", 1 << 60), ("rows", 5))
    ]
    with pytest.raises(CapacityError, match="not enough disk") as caught:
        build_small(store, rules, ["base", "rows"])
    assert f"base {1 << 60:,} + rows 5 = {(1 << 60) + 5:,} bytes needed" in caught.value.why
    assert count_runs(store) == 0


def test_an_input_of_the_users_that_is_gone_is_said_before_the_first_stage(store: Store) -> None:
    made, split = make_rules()
    lost = Rule(
        name="rows",
        image=split.image,
        stage=split.stage,
        options=split.options,
        inputs={"more": "base"},
        sources={"source-1": store.root / "absent"},
    )
    with pytest.raises(UsageError, match="is not there"):
        build_small(store, [made, lost])
    assert count_runs(store) == 0


def test_six_concurrent_builders_build_each_artifact_once(store: Store, undisturbed: Store) -> None:
    builders = [start_builder(store) for _ in range(6)]
    told = [each.communicate()[0] for each in builders]
    assert [each.returncode for each in builders] == [0] * 6, told
    assert count_runs(store) == 2
    assert read_bytes(store) == read_bytes(undisturbed)
    assert sum("waiting for process" in each for each in told) >= 1


_WITHOUT_LOCKS = """
import errno, fcntl, os, runpy
def flock(descriptor, operation):
    {body}
fcntl.flock = flock
runpy.run_module("tests.artifact.small_build", run_name="__main__")
"""


@pytest.mark.parametrize(
    "body",
    ["return None", "raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))"],
    ids=["locks that always succeed", "no locks at all"],
)
def test_builders_on_a_file_system_whose_locks_do_nothing_do_no_harm(
    store: Store, undisturbed: Store, body: str
) -> None:
    """Work may be done twice, and nothing is broken or swept away."""
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", _WITHOUT_LOCKS.format(body=body), str(store.root)],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(4)
    ]
    told = [each.communicate()[0] for each in builders]
    assert [each.returncode for each in builders] == [0] * 4, told
    assert read_bytes(store) == read_bytes(undisturbed)
    assert find_damage(store.read_all()[0]) == []


@pytest.mark.parametrize("point", seal.POINTS)
def test_a_kill_at_any_point_of_the_seal_leaves_all_or_nothing(
    store: Store, undisturbed: Store, point: str
) -> None:
    killed = start_builder(store, "--kill-at", point)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    left, unreadable = store.read_all()
    assert unreadable == []
    assert find_damage(left) == []
    build_small(store)
    assert read_bytes(store) == read_bytes(undisturbed)
    assert _read_workspaces(store) == []


def test_every_point_is_reached_in_order(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    reached: list[str] = []
    monkeypatch.setattr(seal, "reach", reached.append)
    build_small(store, wanted=["base"])
    assert tuple(reached) == seal.POINTS


def test_all_is_on_the_disk_before_the_rename_and_the_rename_after(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut leaves depends on this order alone: files, directories, rename, parent."""
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
    build_small(store, wanted=["base"])
    assert sorted(done[:-3]) == ["held_out.jsonl", "manifest.json", "train.jsonl"]
    assert done[-3:] == ["out", "rename out", "store"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_builder_ended_while_its_stage_runs_leaves_nothing_that_is_used(
    store: Store, undisturbed: Store, number: signal.Signals
) -> None:
    ended = start_builder(store)
    deadline = time.monotonic() + 60
    while not _read_workspaces(store) and time.monotonic() < deadline:
        time.sleep(0.005)
    ended.send_signal(number)
    ended.communicate()
    assert ended.returncode != 0
    wait_for_processes(store)
    build_small(store)
    assert read_bytes(store) == read_bytes(undisturbed)
    assert _read_workspaces(store) == []


def test_leftovers_of_other_keys_are_swept_too(store: Store) -> None:
    killed = start_builder(store, "--kill-at", "output hashed")
    killed.communicate()
    assert len(_read_workspaces(store)) == 1
    build_small(store, make_rules(seed=2))
    assert _read_workspaces(store) == []


def test_a_store_at_another_path_gets_the_same_keys_and_bytes(
    tmp_path: Path, undisturbed: Store
) -> None:
    elsewhere = open_store(tmp_path / "a longer path, with spaces" / "store")
    build_small(elsewhere)
    assert read_bytes(elsewhere) == read_bytes(undisturbed)


def test_a_hit_waits_for_no_lock(store: Store) -> None:
    build_small(store)
    with (store.root / ".locks" / "uses").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        build_small(store)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_build_reaches_its_end_though_nobody_listens(
    store: Store, undisturbed: Store, jobs: str
) -> None:
    """As under `make demo 2>&1 | head -1`."""
    builder = start_builder(store, "--jobs", jobs)
    assert builder.stdout is not None
    assert builder.stdout.readline()
    builder.stdout.close()
    assert builder.wait(120) == 0
    assert read_bytes(store) == read_bytes(undisturbed)
