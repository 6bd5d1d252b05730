"""The lock is the kernel's: it excludes other processes and goes when its holder is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.artifact.file_lock import file_lock
from pipeline.artifact.key import REPOSITORY
from pipeline.log import start_log

_HOLD = """
import sys, time
from pathlib import Path
from pipeline.artifact.file_lock import file_lock
with file_lock(Path(sys.argv[1]), waiting_for="text"):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def _hold(path: Path, seconds: float) -> "subprocess.Popen[str]":
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path), str(seconds)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_process_waits_and_says_for_whom(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    start_log()
    with _hold(tmp_path / "lock", 0.5) as holder:
        with file_lock(tmp_path / "lock", waiting_for="text"):
            assert holder.wait() == 0
        told = capfd.readouterr().err
    assert f"waiting for process {holder.pid}, which makes text" in told


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    with _hold(tmp_path / "lock", 600) as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        with file_lock(tmp_path / "lock", waiting_for="text"):
            pass
