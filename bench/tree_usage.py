"""A command line -> what its processes took: wall and CPU seconds, peak anonymous memory.

CPU seconds are the kernel's, of the process and all that it waited for. Memory is read from /proc
every few milliseconds and summed over the processes, so a peak shorter than that is missed.
"""

import os
import resource
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import StageError

_EVERY_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one command took, or several one after the other."""

    wall_s: float
    cpu_s: float
    peak_bytes: int

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            wall_s=self.wall_s + other.wall_s,
            cpu_s=self.cpu_s + other.cpu_s,
            peak_bytes=max(self.peak_bytes, other.peak_bytes),
        )


def measure(argv: Sequence[str], log: Path, cores: int) -> Usage:
    """Run a command on so many cores; return what it took.

    Raises StageError when it fails.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started, peak = time.perf_counter(), 0
    allowed = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, allowed[:cores])
    try:
        with log.open("ab") as file:
            process = subprocess.Popen(argv, stdout=file, stderr=file)
    finally:
        os.sched_setaffinity(0, allowed)
    while process.poll() is None:
        peak = max(peak, sum(_read_anonymous(each) for each in _list_tree(process.pid)))
        time.sleep(_EVERY_S)
    wall_s = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode != 0:
        raise StageError(
            "a measured step failed",
            on=" ".join(argv[1:]),
            why=log.read_text(errors="replace")[-2000:],
            then="mend that; then run this again",
        )
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Usage(wall_s=wall_s, cpu_s=cpu_s, peak_bytes=peak)


def _list_tree(pid: int) -> list[int]:
    found = [pid]
    with suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        found += [each for child in children for each in _list_tree(int(child))]
    return found


def _read_anonymous(pid: int) -> int:
    """Return the bytes of anonymous memory that the process has in RAM."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0
