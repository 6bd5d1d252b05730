"""A data set whose build is killed: the next build goes on from the finished parts, and makes the
same bytes as one that nobody disturbed."""

import os
import signal
import time
from pathlib import Path

import pytest

from pipeline.artifact.store import open_store
from pipeline.data.partition import list_parts
from tests.artifact.small_build import make_small_steps, wait_for_processes
from tests.data.small_dataset import RULES, build_dataset, seal_inputs, start_builder

pytestmark = pytest.mark.train


def test_a_killed_build_goes_on_from_its_parts(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    seal_inputs(store)
    builder = start_builder(store)
    deadline = time.monotonic() + 120
    while not (finished := _find_parts(store.work_areas)) and time.monotonic() < deadline:
        assert builder.poll() is None, builder.communicate()[0]
        time.sleep(0.005)
    os.kill(builder.pid, signal.SIGKILL)
    builder.communicate()
    # The stage and the processes that render end, too.
    wait_for_processes(store)
    finished = _find_parts(store.work_areas)
    step = make_small_steps(store, RULES)[-1]
    rows = make_small_steps(store, RULES)[1].artifact
    assert rows is not None
    parts = len(list_parts(rows.path / "train.jsonl"))
    assert 1 <= len(finished) < parts

    again = build_dataset(store)
    log = store.log_path(step.key, "dataset").read_text()
    assert f"{len(finished)} of {parts} parts were finished before" in log
    assert list(store.work_areas.iterdir()) == []

    undisturbed = open_store(tmp_path / "undisturbed")
    seal_inputs(undisturbed)
    expected = build_dataset(undisturbed)
    assert again.name == expected.name
    for path in expected.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def _find_parts(work_areas: Path) -> list[Path]:
    return list(work_areas.glob("*/*.arrow"))
