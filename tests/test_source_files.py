"""A key names what the user's files hold, not where they lie or when they were written."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from pipeline.artifact.manifest import hash_file
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


def test_a_file_is_hashed_once_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []

    def count(path: Path) -> str:
        hashed.append(path.name)
        return hash_file(path)

    monkeypatch.setattr("pipeline.source_files.hash_file", count)
    path = tmp_path / "rows.jsonl"
    path.write_text("one")
    first = list_file(path, tmp_path / "digests")
    assert list_file(path, tmp_path / "digests") == first
    assert hashed == ["rows.jsonl"]
    path.write_text("two")
    os.utime(path, ns=(0, 0))
    assert list_file(path, tmp_path / "digests") != first


def test_a_damaged_memory_of_digests_is_only_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("one")
    (tmp_path / "digests").write_text("{")
    assert list_file(path, tmp_path / "digests") == hashlib.sha256(b"one").hexdigest()
