"""What a recipe still needs is known without hashing a file of the user's or writing one."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import source_files
from pipeline.artifact.store import Store
from pipeline.doctor.recipe import read_needs
from pipeline.errors import StoreError, UsageError
from pipeline.project import RECIPES, read_project
from tests.doctor.fake_host import NEEDS, FakeHost


def _write_recipe(tmp_path: Path, more: str = "") -> Path:
    (tmp_path / "rows.jsonl").write_text('{"problem": "p", "thinking": "t", "solution": "s"}\n')
    path = tmp_path / "mine.toml"
    path.write_text('[base]\nsource = "demo"\n[dataset]\nsource = "rows.jsonl"\n' + more)
    return path


def test_the_demonstration_from_nothing(tmp_path: Path) -> None:
    needs = read_needs(RECIPES / "demo.toml", Store(tmp_path / "store"))
    assert needs.settled
    assert needs.images == ("convert", "serve", "train")
    assert len(needs.missing_bytes) == needs.artifacts == 12
    assert not (tmp_path / "store").exists()


def test_files_that_nobody_hashed_are_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise AssertionError(path)

    recipe, store = _write_recipe(tmp_path), Store(tmp_path / "store")
    with monkeypatch.context() as patch:
        patch.setattr(source_files, "hash_file", refuse)
        needs = read_needs(recipe, store)
    assert not needs.settled
    assert needs.images == ("convert", "serve-cuda", "train-cuda")
    assert set(needs.missing_bytes) >= {"rows", "base", "text", "adapter", "gguf-Q4_K_M"}
    assert not store.root.exists()


def test_problems_of_ones_own_are_left_alone_and_count_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exam.jsonl").write_text('{"problem": "p", "solution": "s"}\n')
    more = '[evaluate]\nproblems = 0\n[[evaluate.rows]]\nsource = "exam.jsonl"\n'
    recipe, store = _write_recipe(tmp_path, more), Store(tmp_path / "store")
    needs = read_needs(recipe, store)
    assert not needs.settled
    assert "answers" in needs.missing_bytes
    store.root.mkdir()
    monkeypatch.setattr(source_files, "_SETTLED_S", -1.0)
    read_project(recipe, store)
    assert read_needs(recipe, store).settled
    (tmp_path / "exam.jsonl").write_text("changed\n")
    assert not read_needs(recipe, store).settled


def test_files_with_a_known_digest_are_not_hashed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, store = _write_recipe(tmp_path), Store(tmp_path / "store")
    store.root.mkdir()
    monkeypatch.setattr(source_files, "_SETTLED_S", -1.0)
    read_project(recipe, store)
    # A write would be another file: reading changes its time of access.
    written = (store.root / ".digests.json").stat().st_ino
    needs = read_needs(recipe, store)
    assert needs.settled
    assert (store.root / ".digests.json").stat().st_ino == written
    (tmp_path / "rows.jsonl").write_text("changed\n")
    assert not read_needs(recipe, store).settled


def test_a_recipe_that_cannot_be_meant(tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('[base]\nsource = "demo"\n')
    with pytest.raises(UsageError, match=r"\[dataset\] source is missing"):
        read_needs(path, Store(tmp_path))


def test_a_damaged_store_is_a_problem(host: FakeHost) -> None:
    recipe = RECIPES / "demo.toml"
    store = Store(host.home / "store")
    step = read_project(recipe, store).make_steps(["rows"])[0]
    (store.root / step.directory).mkdir(parents=True)
    needs = read_needs(recipe, store)
    assert isinstance(needs.damage, StoreError)
    found = host.examine(needs=needs)["recipe"]
    assert (found.state, found.what) == ("problem", "an artifact in the store is damaged")
    assert "python -m pipeline verify rows" in found.fix


def test_what_is_left_to_be_made_is_counted(host: FakeHost) -> None:
    assert host.examine()["recipe"].what == "fake.toml: 2 artifacts, 2 still to be made"
    done = host.examine(needs=replace(NEEDS, missing_bytes={}))
    assert done["recipe"].what == "fake.toml: 2 artifacts, nothing to build"
    assert "not hashed yet" in host.examine(needs=replace(NEEDS, settled=False))["recipe"].why


_HUB_NEEDS = replace(NEEDS, sources=("hf://org/model", "demo"))


def test_a_source_on_the_hub_wants_a_token(host: FakeHost) -> None:
    assert "hub-token" not in host.examine()
    found = host.examine(needs=_HUB_NEEDS)["hub-token"]
    assert (found.state, found.fix) == ("warning", "hf auth login")
    assert "hf://org/model" in found.why


@pytest.mark.parametrize(
    ("variables", "file"),
    [
        ({"HF_TOKEN": "hf_secret"}, ""),
        ({}, ".cache/huggingface/token"),
        ({"XDG_CACHE_HOME": "{home}/cache"}, "cache/huggingface/token"),
        ({"HF_HOME": "{home}/hub"}, "hub/token"),
        ({"HF_TOKEN_PATH": "{home}/here"}, "here"),
    ],
)
def test_a_token_is_found_and_not_shown(
    host: FakeHost, variables: dict[str, str], file: str
) -> None:
    if file:
        (host.home / file).parent.mkdir(parents=True, exist_ok=True)
        (host.home / file).write_text("hf_secret")
    given = {name: value.format(home=host.home) for name, value in variables.items()}
    found = host.examine(host.make_machine(given), needs=_HUB_NEEDS)["hub-token"]
    assert found.state == "ok"
    assert "hf_secret" not in found.what
