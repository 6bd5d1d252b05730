"""A full disk and a read-only one: refused with the reason, and nothing half-made is left."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.store import open_store
from tests.artifact.small_build import build_small, read_bytes
from tests.artifact.small_disk import CANNOT


def _play(scene: str, directory: Path, size_bytes: int) -> dict[str, Any]:
    directory.mkdir()
    told = subprocess.run(
        [
            *(sys.executable, "-m", "tests.artifact.small_disk"),
            *(scene, str(directory), str(size_bytes)),
        ],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode == CANNOT:
        pytest.skip("this machine lets no test mount a disk of its own")
    assert told.returncode == 0, told.stderr
    return dict(json.loads(told.stdout))


@pytest.mark.parametrize(
    ("scene", "told"),
    [
        ("fill_while_a_stage_runs", "5 the stage of north failed; nothing was stored"),
        ("fill_while_sealing", "4 the disk is full"),
    ],
)
def test_a_full_disk_leaves_nothing_and_the_next_build_goes_on(
    tmp_path: Path, scene: str, told: str
) -> None:
    played = _play(scene, tmp_path / "disk", 1 << 20)
    assert played["told"] == told
    assert played["left"] == []
    assert played["again"] == "built"
    elsewhere = open_store(tmp_path / "store")
    build_small(elsewhere)
    assert played["bytes"] == {
        name: content.hex() for name, content in read_bytes(elsewhere).items()
    }


def test_a_read_only_store_can_be_used_and_not_built_in(tmp_path: Path) -> None:
    played = _play("use_read_only", tmp_path / "disk", 1 << 24)
    assert played == {
        "nothing to build": "built",
        "something to build": "3 this build must write where it cannot",
        "damage": [],
        "artifacts": ["base", "rows"],
    }
