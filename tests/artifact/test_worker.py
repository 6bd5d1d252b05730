"""Independent artifacts side by side: each once, its talk marked, a failure or interrupt clean."""

import signal
import time
from pathlib import Path

import pytest

from pipeline.artifact.rule import Rule
from pipeline.artifact.store import Store, open_store
from pipeline.errors import StageError
from tests.artifact.small_build import (
    build_small,
    count_runs,
    find_processes,
    make_rules,
    make_wide_rules,
    read_bytes,
    start_builder,
    wait_for_processes,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def test_side_by_side_gives_the_bytes_of_one_after_the_other(store: Store, tmp_path: Path) -> None:
    one_by_one = open_store(tmp_path / "one by one")
    rules = make_wide_rules(50)
    names = [rule.name for rule in rules]
    build_small(one_by_one, rules, names)
    sealed = build_small(store, rules, names, jobs=3)
    assert list(sealed) == names
    assert read_bytes(store) == read_bytes(one_by_one)
    assert count_runs(store) == 4


def test_an_artifact_waits_for_its_inputs(store: Store) -> None:
    assert list(build_small(store, make_rules(), ["rows"], jobs=4)) == ["base", "rows"]


def test_every_line_bears_the_artifacts_name(store: Store) -> None:
    told, _ = start_builder(store, "--wide", "50", "--jobs", "2").communicate()
    lines = told.splitlines()
    assert len(lines) > 4
    for line in lines:
        assert line.startswith("[") or line.split()[0].rstrip(":") in (
            "north",
            "east",
            "south",
            "west",
        ), line


def test_after_a_failure_what_runs_ends_well_and_nothing_new_begins(store: Store) -> None:
    broken = Rule(name="broken", image="train", stage="demo.absent", options={})
    rules = [broken, *make_wide_rules(50)]
    with pytest.raises(StageError, match="the stage of broken failed"):
        build_small(store, rules, [rule.name for rule in rules], jobs=2)
    names = [artifact.name for artifact in store.read_all()[0]]
    assert "north" in names
    assert len(names) < 4
    assert list(store.workspaces.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_ended_build_leaves_no_process_and_goes_on_later(
    store: Store, number: signal.Signals
) -> None:
    builder = start_builder(store, "--wide", "300000", "--jobs", "2")
    deadline = time.monotonic() + 60
    while len(find_processes(f"{store.workspaces}/")) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(find_processes(f"{store.workspaces}/")) == 2
    builder.send_signal(number)
    builder.communicate()
    wait_for_processes(store)
    assert store.read_all() == ([], [])
    assert list(store.workspaces.iterdir()) == []
    assert len(build_small(store, make_wide_rules(50), ["north"], jobs=2)) == 1
