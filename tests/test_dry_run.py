"""`DRY_RUN=1 make TARGET`: every target says what it would do, and does none of it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.store import open_store
from tests.artifact.sealing import seal_small

_RULE = re.compile(r"^([a-z][a-z% -]*):(?!=)", re.MULTILINE)
# What targets write beside the store.
_WRITTEN = ("recipes/reference.toml", "docs/recipe.md", ".env", "compose.yaml", "docker/*.lock")


def _list_targets() -> list[str]:
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    names = {name for rule in _RULE.findall(text) for name in rule.split()}
    return sorted(name.replace("%", "Q8_0") for name in names)


def _make(target: str, folder: Path, *variables: str) -> "subprocess.CompletedProcess[str]":
    envs = folder / "envs"
    return subprocess.run(
        ["make", target, f"STORE={folder / 'store'}", f"PYTHON={sys.executable}", *variables],
        cwd=REPOSITORY,
        env={**os.environ, "TRISTILL_ENVS": str(envs), "HOME": str(folder), "MAKEFLAGS": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def _read_written() -> dict[Path, tuple[int, int]]:
    paths = [path for pattern in _WRITTEN for path in REPOSITORY.glob(pattern)]
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in paths}


@pytest.fixture
def before() -> dict[Path, tuple[int, int]]:
    return _read_written()


@pytest.mark.parametrize("target", _list_targets())
def test_a_target_only_says_what_it_would_do(
    tmp_path: Path, before: dict[Path, tuple[int, int]], target: str
) -> None:
    told = _make(
        target, tmp_path, "DRY_RUN=1", "REGISTRY=registry.example/x", "GC=--delete", "HOST=1"
    )
    assert told.stdout + told.stderr != ""
    assert "Traceback" not in told.stderr
    # The doctor, who only looks, says by his exit code what this host lacks.
    assert told.returncode == 0 or target == "doctor", told.stderr
    assert _read_written() == before
    assert open_store(tmp_path / "store").read_all() == ([], [])
    assert not (tmp_path / "envs").exists()


def test_the_menu_is_among_the_targets() -> None:
    targets = _list_targets()
    assert {"help", "demo", "adapter", "train", "serve", "gguf-Q8_0", "pull", "push"} <= set(
        targets
    )


def test_what_is_built_is_told_as_its_plan(tmp_path: Path) -> None:
    told = _make("adapter", tmp_path, "DRY_RUN=1")
    assert re.search(r"^adapter +build ", told.stdout, re.MULTILINE)
    assert "gguf-Q8_0 " not in told.stdout.partition("\n\n")[0]


def test_nothing_is_removed(tmp_path: Path) -> None:
    sealed = seal_small(open_store(tmp_path / "store"))
    told = _make("gc", tmp_path, "DRY_RUN=1", "GC=--delete", "HOST=1")
    assert "would go" in told.stdout
    assert sealed.path.is_dir()


def test_zero_means_no_dry_run(tmp_path: Path) -> None:
    assert _make("verify", tmp_path, "DRY_RUN=0").stderr.startswith("hashed 0 artifacts")
    assert "would be hashed" in _make("verify", tmp_path, "DRY_RUN=1").stderr
