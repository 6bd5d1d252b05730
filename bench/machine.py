"""What a figure depends on: the machine and the versions, for the head of a table."""

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path

from bench import peers


def describe(directory: Path) -> str:
    """Return the date, the machine, the directory's file system and the versions, in Markdown."""
    memory_gb = read_memory_bytes("MemTotal") / 1e9
    return (
        f"{datetime.datetime.now(datetime.UTC).date()}. {read_cpu_model()},"
        f" {os.cpu_count()} cores, {memory_gb:.0f} GB of memory,"
        f" {read_file_system_type(directory)}; load average at the start"
        f" {os.getloadavg()[0]:.1f}. Python {platform.python_version()},"
        f" DVC {peers.read_version('dvc')}, Snakemake {peers.read_version('snakemake')},"
        f" coreutils {_read_coreutils_version()}."
    )


def read_memory_bytes(field: str) -> int:
    """Return a field of /proc/meminfo."""
    text = Path("/proc/meminfo").read_text(encoding="ascii")
    found = re.search(rf"(?m)^{field}:\s+(\d+) kB", text)
    assert found, f"/proc/meminfo has no {field}"
    return int(found[1]) * 1024


def read_file_system_type(directory: Path) -> str:
    """Return the type of the file system that the directory lies on."""
    types = {}
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, mount, name, *_ = line.split()
        if directory.resolve().is_relative_to(mount):
            types[len(mount)] = name
    return types[max(types)]


def read_cpu_model() -> str:
    """Return the processor's name, or its architecture."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = re.search(r"(?m)^model name\s*: (.*)$", text)
    return found[1] if found else platform.machine()


def _read_coreutils_version() -> str:
    argv = ["sha256sum", "--version"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return said.splitlines()[0].split()[-1]
