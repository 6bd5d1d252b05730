"""The verb: all findings, then the exit code; nothing is written, whatever hangs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.store import open_store
from pipeline.doctor.finding import Finding, ok, problem, warning
from pipeline.report.doctor import format_findings
from tests.artifact.sealing import seal_small
from tests.doctor.fake_host import FakeHost, make_docker_info

_KEYS = {"check", "state", "what", "why", "fix"}


def _run(host: FakeHost, *argv: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the verb with the host's programs alone."""
    host.bin.mkdir(exist_ok=True)
    environment = {
        "PATH": str(host.bin),
        "HOME": str(host.home),
        "PYTHONDONTWRITEBYTECODE": "1",
        "TRISTILL_ENVS": str(host.home / "envs"),
        **variables,
    }
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "doctor", "--store", str(host.home / "store"), *argv],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def _add_compilers(host: FakeHost) -> None:
    for name in ("cc", "c++", "make"):
        host.add_program(name)


def _list(directory: Path) -> dict[str, tuple[int, int]]:
    paths = [directory, *directory.rglob("*")]
    return {str(path): (path.lstat().st_mtime_ns, path.lstat().st_size) for path in paths}


def _read(told: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    report = json.loads(told.stdout)
    assert isinstance(report, dict)
    return report


def test_a_ready_host_ends_with_0(host: FakeHost) -> None:
    _add_compilers(host)
    told = _run(host, "--json")
    assert told.returncode == 0, told.stderr
    report = _read(told)
    assert set(report) == {"ready", "findings"}
    assert report["ready"] is True
    assert all(set(finding) == _KEYS for finding in report["findings"])
    assert {finding["state"] for finding in report["findings"]} <= {"ok", "warning"}
    for finding in report["findings"]:
        assert bool(finding["fix"]) == (finding["state"] != "ok")
    names = [finding["check"] for finding in report["findings"]]
    assert len(names) == len(set(names))


def test_a_problem_ends_with_3_after_all_findings(host: FakeHost) -> None:
    told = _run(host, "--json")
    assert told.returncode == 3
    report = _read(told)
    assert report["ready"] is False
    assert report["findings"][-1]["check"] == "gpu"
    assert "error: this host is not ready: 1 of " in told.stderr
    assert "on:   compilers" in told.stderr
    told = _run(host)
    assert told.returncode == 3
    assert "\nnot ready: " in told.stdout


def test_a_recipe_that_cannot_be_meant_ends_with_2(host: FakeHost) -> None:
    told = _run(host, "--recipe", "absent.toml")
    assert (told.returncode, told.stdout) == (2, "")
    assert "absent.toml" in told.stderr


def test_programs_that_hang_keep_nobody(host: FakeHost) -> None:
    _add_compilers(host)
    for name in ("docker", "docker-compose", "nvidia-smi", "nvidia-ctk"):
        host.add_script(name, f"echo $$ >>{host.home}/pids; /bin/sleep 600")
    report = _read(_run(host, "--json"))
    states = {finding["check"]: finding for finding in report["findings"]}
    assert states["docker-daemon"]["what"] == "Docker does not answer"
    pids = (host.home / "pids").read_text().split()
    assert pids
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_nothing_is_written(host: FakeHost) -> None:
    _add_compilers(host)
    host.add_program("docker", {"info ": make_docker_info()})
    seal_small(open_store(host.home / "store"))
    (host.home / "envs" / "locks").mkdir(parents=True)
    recipe = host.home / "mine.toml"
    (host.home / "rows.jsonl").write_text("{}\n")
    recipe.write_text(
        '[base]\nsource = "demo"\n[dataset]\nsource = "rows.jsonl"\n'
        '[train]\naccelerator = "cpu"\n[serve]\naccelerator = "cpu"\n'
    )
    before = _list(host.home)
    for name in (str(recipe), "recipes/demo.toml"):
        assert _run(host, "--recipe", name).returncode == 0
    assert _list(host.home) == before


def test_a_store_that_is_not_there_is_not_made(host: FakeHost) -> None:
    _add_compilers(host)
    _run(host)
    assert sorted(path.name for path in host.home.iterdir()) == ["bin"]


def test_this_very_host_gets_an_answer() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "pipeline", "doctor", "--json"],
        cwd=REPOSITORY,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode in (0, 3), told.stderr
    report = _read(told)
    assert report["ready"] is (told.returncode == 0)
    assert {"python", "image-python", "disk", "docker", "gpu"} <= {
        finding["check"] for finding in report["findings"]
    }


_FINDINGS = [
    ok("python", what="Python 3.11.2"),
    ok("disk", what="enough", why="for sure"),
    warning("gpu", what="none", why="slow", fix="get one"),
    problem("compilers", what="no cc", why="needed", fix="sudo pacman -S base-devel"),
]


def test_the_list_begins_with_the_state() -> None:
    assert format_findings(_FINDINGS, colour=False) == (
        "ok       python     Python 3.11.2\n"
        "ok       disk       enough\n"
        "                    why: for sure\n"
        "warning  gpu        none\n"
        "                    why: slow\n"
        "                    fix: get one\n"
        "problem  compilers  no cc\n"
        "                    why: needed\n"
        "                    fix: sudo pacman -S base-devel\n"
        "\n"
        "not ready: 2 ok, 1 warning, 1 problem\n"
    )


@pytest.mark.parametrize(
    ("finding", "start"),
    [(_FINDINGS[0], "\033[32mok\033[0m  "), (_FINDINGS[3], "\033[31mproblem\033[0m  ")],
)
def test_colour_on_a_terminal_paints_the_state_alone(finding: Finding, start: str) -> None:
    assert format_findings([finding], colour=True).startswith(start + finding.check)


def test_no_colour_without_a_terminal(host: FakeHost) -> None:
    assert "\033" not in _run(host).stdout
