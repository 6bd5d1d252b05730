"""A plan without its sources: what has no key is named, and nothing large is hashed for it."""

import shutil
from pathlib import Path

import pytest

from pipeline.artifact.store import open_store
from pipeline.errors import UsageError
from pipeline.estimate.base_config import find_shipped
from pipeline.project import Project, read_project
from tests.estimate.shapes import DEVSTRAL

OF_BASE = {
    "base",
    "text",
    "dataset",
    "dataset-report",
    "training",
    "adapter",
    "merged",
    "adapter-gguf",
    "ollama",
    "gguf-Q4_K_M",
    "base-gguf",
    "answers",
}


def plan(folder: Path, base: str, rows: str = "demo", *, planning: bool = True) -> Project:
    recipe = folder / "mine.toml"
    recipe.write_text(f'[base]\nsource = "{base}"\n[dataset]\nsource = "{rows}"\n')
    return read_project(recipe, open_store(folder / "store"), planning=planning)


def write_base(folder: Path, *, size_bytes: int = 100) -> None:
    folder.mkdir()
    shutil.copy(find_shipped(DEVSTRAL) / "config.json", folder / "config.json")
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(size_bytes)  # a hole: nothing is written


def test_a_base_that_is_not_here_is_planned_by_its_shipped_config(tmp_path: Path) -> None:
    project = plan(tmp_path, f"/absent/{DEVSTRAL}")
    assert set(project.find_unkeyed()) == OF_BASE
    assert project.estimate.base_parameters == 23_572_403_200
    assert set(project.find_unkeyed().values()) == {"its source is not here"}
    with pytest.raises(UsageError, match="1 error"):
        plan(tmp_path, f"/absent/{DEVSTRAL}", planning=False)


OF_BASE_ALONE = {"base", "text", "ollama", "base-gguf"}


def test_rows_that_are_not_here_leave_the_base_its_key(tmp_path: Path) -> None:
    project = plan(tmp_path, "demo", "absent.jsonl")
    assert set(project.find_unkeyed()) == {*OF_BASE, "rows"} - OF_BASE_ALONE
    assert project.make_outlook().steps is None


def test_small_files_alone_have_no_key(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    assert plan(tmp_path, "base").find_unkeyed() == {}
    (tmp_path / "base" / "model.safetensors").unlink()
    assert set(plan(tmp_path, "base").find_unkeyed()) == OF_BASE


def test_a_large_base_is_not_hashed_for_a_plan(tmp_path: Path) -> None:
    write_base(tmp_path / "base", size_bytes=(1 << 30) + 1)
    project = plan(tmp_path, "base")
    assert set(project.find_unkeyed()) == OF_BASE
    assert "not hashed yet" in project.absent["base"]
    assert not (tmp_path / "store" / ".digests.json").exists()


def test_problems_of_ones_own_that_are_not_here_leave_the_models_their_keys(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        '[base]\nsource = "demo"\n[dataset]\nsource = "demo"\n[evaluate]\nbefore_export = true\n'
        '[[evaluate.rows]]\nsource = "exam.jsonl"\n'
    )
    store = open_store(tmp_path / "store")
    assert set(read_project(recipe, store, planning=True).find_unkeyed()) == {
        "answers",
        "answers-checkpoint",
    }
    with pytest.raises(UsageError, match="1 error"):
        read_project(recipe, store)
    (tmp_path / "exam.jsonl").write_text('{"problem": "p", "solution": "s"}\n')
    assert read_project(recipe, store, planning=True).find_unkeyed() == {}


def test_an_unknown_base_that_is_not_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        plan(tmp_path, "/absent/unheard-of")
