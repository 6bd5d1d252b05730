"""A key names what the user's files hold, not where they lie or when they were written."""

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from pipeline.artifact.hashing import hash_file
from pipeline.source_files import list_checkpoint_files, list_file


def _write_checkpoint(directory: Path) -> Path:
    directory.mkdir()
    for name in ("model-1.safetensors", "model-2.safetensors", "consolidated.safetensors"):
        (directory / name).write_bytes(name.encode())
    weight_map = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "gone.safetensors"}
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (directory / "config.json").write_text("{}")
    (directory / "picture.png").write_bytes(b"png")
    return directory


def test_a_checkpoint_is_what_its_index_names_and_its_small_files(tmp_path: Path) -> None:
    listed = list_checkpoint_files(_write_checkpoint(tmp_path / "base"), tmp_path / "digests")
    assert [line.split("  ")[1] for line in listed] == [
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
    ]
    assert listed[0].startswith(hashlib.sha256(b"{}").hexdigest())


def test_without_an_index_the_model_files_count(tmp_path: Path) -> None:
    directory = _write_checkpoint(tmp_path / "base")
    (directory / "model.safetensors.index.json").unlink()
    listed = list_checkpoint_files(directory, tmp_path / "digests")
    assert [line.split("  ")[1] for line in listed] == [
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
    ]


def test_a_moved_checkpoint_has_the_same_digests(tmp_path: Path) -> None:
    directory = _write_checkpoint(tmp_path / "base")
    before = list_checkpoint_files(directory, tmp_path / "digests")
    moved = directory.rename(tmp_path / "moved")
    assert list_checkpoint_files(moved, tmp_path / "digests") == before


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the names of the files that are hashed from now on."""
    names: list[str] = []

    def count(path: Path) -> str:
        names.append(path.name)
        return hash_file(path)

    monkeypatch.setattr("pipeline.source_files.hash_file", count)
    return names


def _let_time_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time
    monkeypatch.setattr("pipeline.source_files.time.time", lambda: now() + 60)


def test_a_settled_file_is_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashed: list[str]
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("one")
    _let_time_pass(monkeypatch)
    first = list_file(path, tmp_path / "digests")
    assert list_file(path, tmp_path / "digests") == first
    assert hashed == ["rows.jsonl"]


@pytest.mark.parametrize("time_ns", [0, 4_102_444_800_000_000_000], ids=["zero", "2100"])
def test_modification_times_hide_no_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, time_ns: int
) -> None:
    """The same size and the same modification time, both times: tools that copy set those."""
    path = tmp_path / "rows.jsonl"
    path.write_text("one")
    os.utime(path, ns=(time_ns, time_ns))
    _let_time_pass(monkeypatch)
    first = list_file(path, tmp_path / "digests")
    path.write_text("two")
    os.utime(path, ns=(time_ns, time_ns))
    assert list_file(path, tmp_path / "digests") != first


def test_a_file_that_changed_a_moment_ago_is_not_remembered(
    tmp_path: Path, hashed: list[str]
) -> None:
    """It may change again within the clock's grain."""
    path = tmp_path / "rows.jsonl"
    path.write_text("one")
    list_file(path, tmp_path / "digests")
    list_file(path, tmp_path / "digests")
    assert hashed == ["rows.jsonl", "rows.jsonl"]


def test_a_damaged_memory_of_digests_is_only_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("one")
    (tmp_path / "digests").write_text("{")
    assert list_file(path, tmp_path / "digests") == hashlib.sha256(b"one").hexdigest()
