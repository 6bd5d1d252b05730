"""Python, compilers, make, memory and the clock: what is wrong, and the one line that mends it."""

import calendar
import os
import sys
from dataclasses import replace
from typing import Any

import pytest

from pipeline.doctor import host as host_checks
from pipeline.doctor.checks import examine
from pipeline.doctor.finding import Finding
from pipeline.engine import environment
from tests.doctor.fake_host import NEEDS, OS_RELEASES, SHORT_S, FakeHost


def _judge(host: FakeHost, check: str, **changes: Any) -> Finding:
    """Return the finding of a host that differs in the named values."""
    seen = host.read()
    changed = replace(seen, host=replace(seen.host, **changes))
    return next(finding for finding in examine(changed) if finding.check == check)


@pytest.fixture
def without_python(monkeypatch: pytest.MonkeyPatch, host: FakeHost) -> None:
    """This Python is of another version, and there is no other."""
    monkeypatch.setattr(host_checks, "PYTHON_VERSION", "2.9")
    monkeypatch.setattr(environment, "PYTHON_VERSION", "2.9")
    monkeypatch.setattr(host_checks, "find_interpreter", environment.find_interpreter.__wrapped__)
    monkeypatch.setenv("PATH", str(host.bin))


def test_this_python_will_do(host: FakeHost) -> None:
    found = host.examine()
    assert found["python"].what == f"Python {sys.version.split()[0]}"
    assert {found[name].state for name in ("python", "image-python")} == {"ok"}


def test_a_python_that_is_too_old(host: FakeHost) -> None:
    found = _judge(host, "python", python=(3, 10, 12))
    assert (found.state, found.what) == ("problem", "Python 3.10.12 is too old")


@pytest.mark.parametrize(
    ("release", "fix"),
    [
        ("debian-12", "sudo apt-get install python3.11-venv"),
        ("debian", "uv python install 3.11 (this distribution has no package of it)"),
        ("ubuntu", "uv python install 3.11 (this distribution has no package of it)"),
        ("fedora", "sudo dnf install python3.11"),
        ("rhel", "sudo dnf install python3.11"),
        ("arch", "uv python install 3.11 (this distribution has no package of it)"),
        ("suse", "sudo zypper install python311"),
        ("other", "install Python 3.11 with venv and ensurepip, as python3.11"),
    ],
)
@pytest.mark.usefixtures("without_python")
def test_no_python_for_the_images(host: FakeHost, release: str, fix: str) -> None:
    host.write("/etc/os-release", OS_RELEASES[release])
    found = host.examine()
    assert found["image-python"].state == "problem"
    assert found["image-python"].fix == fix
    assert "no Python 2.9 on PATH" in found["image-python"].why
    # Their names hold its version, so nothing is known of the environments.
    assert "convert, serve, train" in found["environments"].what


@pytest.mark.usefixtures("without_python")
def test_a_python_without_ensurepip(host: FakeHost) -> None:
    host.write("/etc/os-release", OS_RELEASES["debian-12"])
    host.add_script(
        "python2.9",
        'case "$2" in "") exit 0 ;; esac\n'
        "echo \"ModuleNotFoundError: No module named 'ensurepip'\" >&2; exit 1",
    )
    found = host.examine()["image-python"]
    assert "No module named 'ensurepip'" in found.why
    assert found.fix == "sudo apt-get install python3.11-venv"


@pytest.mark.usefixtures("without_python")
def test_a_python_that_hangs(host: FakeHost) -> None:
    host.add_script("python2.9", "/bin/sleep 600")
    found = host.examine(host.make_machine(each_s=SHORT_S))["image-python"]
    assert "no answer within 0.5 s" in found.why


@pytest.mark.parametrize(
    ("release", "fix"),
    [
        ("debian", "sudo apt-get install build-essential"),
        ("ubuntu", "sudo apt-get install build-essential"),
        ("fedora", "sudo dnf install gcc gcc-c++"),
        ("rhel", "sudo dnf install gcc gcc-c++"),
        ("arch", "sudo pacman -S base-devel"),
        ("suse", "sudo zypper install gcc gcc-c++"),
        ("other", "install a C and a C++ compiler, as cc and c++"),
    ],
)
def test_no_compilers(host: FakeHost, release: str, fix: str) -> None:
    host.write("/etc/os-release", OS_RELEASES[release])
    found = host.examine()["compilers"]
    assert (found.state, found.what) == ("problem", "no cc and no c++ on PATH")
    assert found.fix == fix
    host.add_program("cc")
    assert host.examine()["compilers"].what == "no c++ on PATH"
    host.add_program("c++")
    assert host.examine()["compilers"].state == "ok"


def test_no_compiler_is_needed_once_llama_is_compiled(host: FakeHost) -> None:
    seen = host.read()
    compiled = replace(seen, environments=replace(seen.environments, compiled=True))
    assert host_checks.check_compilers(compiled).state == "ok"


def test_no_make(host: FakeHost) -> None:
    host.write("/etc/os-release", OS_RELEASES["suse"])
    found = host.examine()["make"]
    assert (found.state, found.fix) == ("warning", "sudo zypper install make")
    host.add_program("make")
    assert host.examine()["make"].state == "ok"


def test_root_needs_no_sudo(host: FakeHost) -> None:
    host.write("/etc/os-release", OS_RELEASES["debian"])
    found = host.examine(host.make_machine(user_id=0))
    assert found["make"].fix == "apt-get install make"


def test_too_little_memory_for_the_largest_artifact(host: FakeHost) -> None:
    host.write("/proc/meminfo", "MemTotal: 8000 kB\nMemAvailable:    2000 kB\n")
    found = host.examine()["memory"]
    assert (found.state, found.what) == ("warning", "2.0 MB of memory are free, text has 3.0 MB")
    assert found.fix == "stop other programs, or build on a host with more memory"
    assert host.examine(needs=replace(NEEDS, missing_bytes={}))["memory"].state == "ok"


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"memory.max": "max\n", "memory.current": "5000000\n"}, "2.0 GB"),
        (
            {
                "memory.max": "9000000\n",
                "memory.current": "5000000\n",
                "memory.stat": "anon 1\ninactive_file 1000000\n",
            },
            "5.0 MB",
        ),
        (
            {
                "memory/memory.limit_in_bytes": "9000000\n",
                "memory/memory.usage_in_bytes": "5000000\n",
                "memory/memory.stat": "inactive_file 7\ntotal_inactive_file 500000\n",
            },
            "4.5 MB",
        ),
    ],
)
def test_a_container_has_less_memory_than_its_host(
    host: FakeHost, files: dict[str, str], free: str
) -> None:
    host.write("/proc/meminfo", "MemAvailable: 2000000 kB\n")
    for name, text in files.items():
        host.write(f"/sys/fs/cgroup/{name}", text)
    assert host.examine()["memory"].what == f"{free} of memory are free"


def test_memory_that_is_not_told(host: FakeHost) -> None:
    assert host.examine()["memory"].what == "free memory is not known here"


def test_shared_memory(host: FakeHost) -> None:
    assert host.examine()["shared-memory"].what == "no /dev/shm"
    small = _judge(host, "shared-memory", shared_memory_bytes=64 << 20)
    assert (small.state, small.what) == ("warning", "/dev/shm has 67.1 MB")
    assert small.fix == "sudo mount -o remount,size=2G /dev/shm"
    large = _judge(host, "shared-memory", shared_memory_bytes=2 << 30)
    assert large.state == "ok"


@pytest.mark.parametrize(
    ("now", "newest", "why"),
    [
        ((1970, 1, 1, 0, 5, 0), (0.0, ""), "written in 2026"),
        (
            (2030, 1, 1, 0, 0, 0),
            (calendar.timegm((2030, 1, 1, 1, 0, 0)), "/store/x"),
            "/store/x is 3,600 s younger than now",
        ),
    ],
)
def test_a_clock_that_is_behind(
    host: FakeHost, now: tuple[int, ...], newest: tuple[float, str], why: str
) -> None:
    found = _judge(host, "clock", now_s=float(calendar.timegm(now)), newest_file=newest)
    assert found.state == "warning"
    assert why in found.why
    assert found.fix == "sudo timedatectl set-ntp true"


def test_a_clock_that_is_right(host: FakeHost) -> None:
    found = _judge(
        host,
        "clock",
        now_s=float(calendar.timegm((2030, 1, 1, 0, 0, 0))),
        newest_file=(calendar.timegm((2030, 1, 1, 0, 1, 0)), "/store/x"),
    )
    assert (found.state, found.what) == ("ok", "the clock says 2030-01-01 00:00 UTC")


def test_what_lies_in_the_store_is_looked_at(host: FakeHost) -> None:
    store = host.home / "store"
    (store / "artifact").mkdir(parents=True)
    late = calendar.timegm((2100, 1, 1, 0, 0, 0))
    os.utime(store / "artifact", (late, late))
    assert str(store / "artifact") in host.examine()["clock"].why
