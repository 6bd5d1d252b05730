"""Python, compilers, make, memory and the clock."""

import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.artifact.key import REPOSITORY
from pipeline.doctor.finding import Finding, ok, problem, show_size, warning
from pipeline.doctor.machine import Machine
from pipeline.doctor.situation import Host, Situation
from pipeline.engine.environment import find_interpreter
from pipeline.engine.image import PYTHON_VERSION
from pipeline.errors import HostError

_OLDEST_PYTHON = (3, 11)
_SHARED_MEMORY_BYTES = 1_000_000_000
# When this was written: a clock before that is wrong.
_WRITTEN_IN = 2026
_SKEW_S = 120.0
_AVAILABLE = re.compile(r"^MemAvailable:\s+(\d+) kB$", re.MULTILINE)
# Limit, use, and in the third what of the use can be dropped: cgroup v2, then v1.
_CGROUPS = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
_DROPPABLE = re.compile(r"^(?:total_)?inactive_file (\d+)$", re.MULTILINE)


def read_host(machine: Machine, store: Path) -> Host:
    """Return what there is to build with."""
    interpreter, obstacle = _find_interpreter(machine)
    return Host(
        python=tuple(sys.version_info[:3]),
        interpreter=interpreter,
        interpreter_obstacle=obstacle,
        missing_compilers=tuple(
            name for name in ("cc", "c++") if machine.find_program(name) is None
        ),
        has_make=machine.find_program("make") is not None,
        memory_bytes=read_free_memory(machine),
        shared_memory_bytes=_read_shared_memory(machine),
        now_s=time.time(),
        newest_file=max(_read_times(store), default=(0.0, "")),
    )


def _find_interpreter(machine: Machine) -> tuple[str, str]:
    """Return the path of the images' Python, and why there is none."""
    name = f"python{PYTHON_VERSION}"
    other = machine.find_program(name)
    is_this = ".".join(map(str, sys.version_info[:2])) == PYTHON_VERSION
    # It has no time limit of its own where it asks another Python: whether that one answers at all.
    if not is_this and other is not None:
        answer = machine.ask([other, "-c", ""])
        if answer.code is None:
            return "", f"{other}: {answer.last_error}"
    try:
        return find_interpreter().path, ""
    except HostError as error:
        return "", f"{error.on}: {error.why}"


def read_free_memory(machine: Machine) -> int | None:
    """Return the bytes that can be had without swapping: of the host, and of this cgroup."""
    available = _AVAILABLE.search(machine.read("/proc/meminfo"))
    found = [int(available[1]) << 10] if available else []
    for names in _CGROUPS:
        limit, used, rest = (machine.read(f"/sys/fs/cgroup/{name}") for name in names)
        # "max" is no limit.
        if limit.strip().isdigit() and used.strip().isdigit():
            droppable = max((int(each) for each in _DROPPABLE.findall(rest)), default=0)
            found.append(int(limit) - int(used) + droppable)
    return min(found, default=None)


def _read_shared_memory(machine: Machine) -> int | None:
    with suppress(OSError):
        status = os.statvfs(machine.at("/dev/shm"))
        return status.f_blocks * status.f_frsize
    return None


def _read_times(store: Path) -> Iterator[tuple[float, str]]:
    """Yield the times of our own files and of what lies in the store, without looking deeper."""
    paths = [*(REPOSITORY / "pipeline").rglob("*.py"), *(REPOSITORY / "docker").glob("*")]
    with suppress(OSError):
        paths += store.iterdir()
    for path in paths:
        with suppress(OSError):
            yield path.stat().st_mtime, str(path)


def check_python(seen: Situation) -> Finding:
    """This Python can run the host's side."""
    version = ".".join(map(str, seen.host.python))
    if seen.host.python >= _OLDEST_PYTHON:
        return ok("python", what=f"Python {version}")
    return problem(
        "python",
        what=f"Python {version} is too old",
        why="3.11 or newer is needed",
        fix=seen.machine.find_fix("python"),
    )


def check_image_python(seen: Situation) -> Finding:
    """The images' Python is here and can make virtual environments."""
    if seen.host.interpreter:
        return ok("image-python", what=f"Python {PYTHON_VERSION} is {seen.host.interpreter}")
    return problem(
        "image-python",
        what=f"no Python {PYTHON_VERSION} that can make virtual environments",
        why=seen.host.interpreter_obstacle,
        fix=seen.machine.find_fix("python"),
    )


def check_compilers(seen: Situation) -> Finding:
    """A C and a C++ compiler are here, unless llama.cpp is compiled already."""
    if seen.environments.compiled:
        return ok("compilers", what="not needed: llama.cpp is compiled already")
    if not seen.host.missing_compilers:
        return ok("compilers", what="cc and c++ are here, to compile llama.cpp once")
    return problem(
        "compilers",
        what=f"no {' and no '.join(seen.host.missing_compilers)} on PATH",
        why="llama.cpp is compiled once, for the converter, the quantizer and the server",
        fix=seen.machine.find_fix("compilers"),
    )


def check_make(seen: Situation) -> Finding:
    """make is here; all it does is call `python -m pipeline`."""
    if seen.host.has_make:
        return ok("make", what="make is here")
    return warning(
        "make",
        what="no make on PATH",
        why="`make VERB` does not work; `python -m pipeline VERB` does",
        fix=seen.machine.find_fix("make"),
    )


def check_memory(seen: Situation) -> Finding:
    """The largest artifact still to be made fits into memory."""
    free = seen.host.memory_bytes
    name, needed = max(seen.needs.missing_bytes.items(), key=lambda each: each[1], default=("", 0))
    if free is None:
        return ok("memory", what="free memory is not known here")
    if free >= needed:
        return ok("memory", what=f"{show_size(free)} of memory are free")
    return warning(
        "memory",
        what=f"{show_size(free)} of memory are free, {name} has {show_size(needed)}",
        why="a stage that holds it whole is ended by the kernel",
        fix="stop other programs, or build on a host with more memory",
    )


def check_shared_memory(seen: Situation) -> Finding:
    """/dev/shm holds what data loaders pass on."""
    size = seen.host.shared_memory_bytes
    if size is not None and size >= _SHARED_MEMORY_BYTES:
        return ok("shared-memory", what=f"/dev/shm has {show_size(size)}")
    return warning(
        "shared-memory",
        what="no /dev/shm" if size is None else f"/dev/shm has {show_size(size)}",
        why="data loaders pass their batches through it; 1.0 GB is the least",
        fix=seen.machine.make_command("sudo mount -o remount,size=2G /dev/shm")
        if size is not None
        else seen.machine.make_command("sudo mount -t tmpfs -o size=2G tmpfs /dev/shm"),
    )


def check_clock(seen: Situation) -> Finding:
    """The clock is not before the sources and the store."""
    now_s, (newest_s, newest) = seen.host.now_s, seen.host.newest_file
    shown = time.strftime("%Y-%m-%d %H:%M", time.gmtime(now_s))
    if time.gmtime(now_s).tm_year < _WRITTEN_IN:
        why = f"this program was written in {_WRITTEN_IN}; downloads fail with a clock so early"
    elif newest_s > now_s + _SKEW_S:
        why = f"{newest} is {newest_s - now_s:,.0f} s younger than now"
    else:
        return ok("clock", what=f"the clock says {shown} UTC")
    return warning(
        "clock",
        what=f"the clock says {shown} UTC: that is too early",
        why=why,
        fix=seen.machine.make_command("sudo timedatectl set-ntp true"),
    )
