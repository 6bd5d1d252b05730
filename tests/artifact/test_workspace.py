"""Work directories: gone after use, swept after a death, left alone while in use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.artifact import workspace
from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.store import open_store
from pipeline.artifact.workspace import find_abandoned, make_workspace, remove_tree, sweep
from tests.artifact.sealing import seal_small

_HOLD = """
import sys, time
from pathlib import Path
from pipeline.artifact.workspace import make_workspace
with make_workspace(Path(sys.argv[1]), "text") as work:
    print(work, flush=True)
    time.sleep(600)
"""


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), make_workspace(tmp_path, "text") as work:
        (work / "half").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_living_makers_directory_stays_and_a_dead_ones_goes(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    ) as maker:
        assert maker.stdout is not None
        work = Path(maker.stdout.readline().strip())
        sweep(tmp_path)
        assert work.is_dir()
        maker.kill()
    sweep(tmp_path)
    assert not work.exists()


def test_another_hosts_directory_stays_until_it_is_a_week_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lock may not be seen here."""
    (tmp_path / "0123-text.elsewhere.abc").mkdir()
    monkeypatch.setattr(workspace, "_read_host", lambda: "here")
    assert find_abandoned(tmp_path) == []
    os.utime(tmp_path / "0123-text.elsewhere.abc", (0, 0))
    assert find_abandoned(tmp_path) == [tmp_path / "0123-text.elsewhere.abc"]


def test_remove_tree_takes_read_only_directories(tmp_path: Path) -> None:
    path = seal_small(open_store(tmp_path / "store")).path
    remove_tree(path)
    assert not path.exists()
