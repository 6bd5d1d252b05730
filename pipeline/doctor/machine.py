"""The host as the checks see it: files below one root, variables, and programs that must answer.

Every program has a time limit and all of them together a deadline, so that the doctor ends in time
whatever hangs. What it asks, it asks only to read.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.doctor.distribution import FIXES, Distribution, parse_distribution

# With the start of Python and the recipe, the whole answer stays below three seconds.
_ALL_S = 2.2
_EACH_S = 2.0
_TORN_DOWN_S = 0.2
_OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a program said. No code: it could not be started, or gave no answer in time."""

    code: int | None
    out: str = ""
    error: str = ""

    @property
    def last_error(self) -> str:
        """The last line of its complaint, without anything else."""
        return (self.error.strip().splitlines() or [""])[-1].strip()


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where the checks look, and how long they wait: `each_s` for a program, until `until_s`, a
    time of the monotonic clock, for all."""

    root: Path = Path("/")
    variables: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    user_id: int = field(default_factory=os.geteuid)
    each_s: float = _EACH_S
    until_s: float = field(default_factory=lambda: time.monotonic() + _ALL_S)

    def at(self, path: str) -> Path:
        """Return where a path of the host lies."""
        return self.root / path.lstrip("/")

    def read(self, path: str) -> str:
        """Return the text of a file of the host; "" when it cannot be read."""
        with suppress(OSError):
            return self.at(path).read_text(encoding="utf-8", errors="replace")
        return ""

    def find_programs(self, name: str) -> list[Path]:
        """Return every program of that name on PATH, in its order, each but once."""
        found: dict[Path, Path] = {}
        for directory in self.variables.get("PATH", os.defpath).split(os.pathsep):
            if directory and (path := shutil.which(name, path=directory)):
                found.setdefault(Path(path).resolve(), Path(path))
        return list(found.values())

    def find_program(self, name: str) -> Path | None:
        """Return the program that the name calls."""
        return next(iter(self.find_programs(name)), None)

    def ask(self, argv: Sequence[str | Path], *, spare_s: float = 0.0) -> Answer:
        """Return what a program answers in its time, with `spare_s` left for others."""
        limit_s = min(self.each_s, self.until_s - time.monotonic() - spare_s)
        if limit_s <= 0:
            return Answer(code=None, error="no time was left to ask")
        try:
            process = subprocess.Popen(
                [str(word) for word in argv],
                env={**self.variables, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            return Answer(code=None, error=error.strerror or str(error))
        with process:
            try:
                out, complaint = process.communicate(timeout=limit_s)
            except subprocess.TimeoutExpired:
                _end(process)
                return Answer(code=None, error=f"no answer within {limit_s:.1f} s")
        return Answer(code=process.returncode, out=out, error=complaint)

    def read_distribution(self) -> Distribution:
        """Return which distribution this is."""
        return parse_distribution(next(filter(None, map(self.read, _OS_RELEASE)), ""))

    def find_fix(self, name: str) -> str:
        """Return the one line that mends it on this distribution, for this user."""
        return self.make_command(self.read_distribution().choose(FIXES[name]))

    def make_command(self, line: str) -> str:
        """Return the command line as this user types it: root needs no sudo."""
        return line.replace("sudo ", "") if self.user_id == 0 else line


def _end(process: "subprocess.Popen[str]") -> None:
    """Kill the program and what it started, and leave its pipes."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=_TORN_DOWN_S)


def find_existing(path: Path) -> Path:
    """Return the path, or the nearest directory above it that exists."""
    return next((each for each in (path, *path.parents) if each.exists()), Path("/"))


def is_writable(directory: Path) -> bool:
    """Return whether entries can be made in the directory, found out without making one."""
    return os.access(
        directory, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids
    )
