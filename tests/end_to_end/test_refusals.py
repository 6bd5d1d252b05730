"""What a user can get wrong, each through the command line with the real stage."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.artifact.store import open_store
from tests.end_to_end.tiny_build import RECIPE, Build, read_json

pytestmark = pytest.mark.train


def _copy_base(built: Build, directory: Path) -> Path:
    base = directory / "checkpoint"
    shutil.copytree(built.find("base"), base)
    base.chmod(0o755)
    for path in base.iterdir():
        path.chmod(0o644)
    (base / "manifest.json").unlink()
    return base


def _write_recipe(directory: Path, *, base: str = "demo", rows: str = "demo") -> Path:
    text = RECIPE.read_text()
    head, _, tail = text.partition("[dataset]\n")
    head = head.replace('source = "demo"', f'source = "{base}"')
    tail = tail.replace('source = "demo"', f'source = "{rows}"', 1)
    recipe = directory / "mine.toml"
    recipe.write_text(f"{head}[dataset]\n{tail}")
    return recipe


def _expect_failure(built: Build, recipe: Path, artifact: str, code: int, *words: str) -> None:
    before = sorted(path.name for path in built.store.glob("*-*"))
    told = built.run("build", artifact, recipe=recipe)
    assert told.returncode == code, told.stderr
    assert "Traceback" not in told.stderr
    assert "next:" in told.stderr
    for word in words:
        assert word in told.stderr
    made = {path.name for path in built.store.glob("*-*")} - set(before)
    assert not [name for name in made if name.endswith(f"-{artifact}")]
    assert list((built.store / ".tmp").iterdir()) == []


def _truncate(base: Path) -> str:
    shard = sorted(base.glob("*.safetensors"))[0]
    os.truncate(shard, shard.stat().st_size - 100)
    return shard.name


def _remove_shard(base: Path) -> str:
    shard = sorted(base.glob("*.safetensors"))[0]
    shard.unlink()
    return shard.name


def _name_missing_file(base: Path) -> str:
    index = base / "model.safetensors.index.json"
    document = read_json(index)
    name = next(iter(document["weight_map"]))
    document["weight_map"][name] = "model-00009-of-00009.safetensors"
    index.write_text(json.dumps(document))
    return "model-00009-of-00009.safetensors"


@pytest.mark.parametrize("break_base", [_truncate, _remove_shard, _name_missing_file])
def test_a_broken_checkpoint_is_named_and_nothing_is_stored(
    built: Build, tmp_path: Path, break_base: Callable[[Path], str]
) -> None:
    base = _copy_base(built, tmp_path)
    name = break_base(base)
    recipe = _write_recipe(tmp_path, base=str(base))
    _expect_failure(built, recipe, "base", 5, name)


def test_a_checkpoint_of_the_users_is_taken_as_it_is(built: Build, tmp_path: Path) -> None:
    base = _copy_base(built, tmp_path)
    recipe = _write_recipe(tmp_path, base=str(base))
    told = built.run("build", "text", recipe=recipe)
    assert told.returncode == 0, told.stderr
    texts = [each for each in open_store(built.store).read_all()[0] if each.name == "text"]
    assert len({each.manifest.sha256 for each in texts}) == 1
    moved = base.rename(tmp_path / "moved")
    told = built.run("plan", "--json", "text", recipe=_write_recipe(tmp_path, base=str(moved)))
    assert {each["state"] for each in json.loads(told.stdout)["artifacts"]} == {"cached"}


def test_a_row_without_an_answer_is_named(built: Build, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    good = {"problem": "What is 1 + 1?", "thinking": "one and one", "solution": "2"}
    bad = {"problem": "What is 1 + 2?", "thinking": "one and two"}
    rows.write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
    recipe = _write_recipe(tmp_path, rows=str(rows))
    _expect_failure(built, recipe, "rows", 5, "rows.jsonl", "2", "solution")


def test_a_chat_template_that_fails_is_told_in_its_own_words(built: Build, tmp_path: Path) -> None:
    base = _copy_base(built, tmp_path)
    (base / "chat_template.jinja").write_text("{{ raise_exception('no tools today') }}")
    recipe = _write_recipe(tmp_path, base=str(base))
    _expect_failure(built, recipe, "dataset", 5, "no tools today")


def test_a_misspelt_key_is_told_before_anything_runs(built: Build, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.toml"
    recipe.write_text(RECIPE.read_text().replace("learning_rate", "learning_rat"))
    _expect_failure(built, recipe, "adapter", 2, "did you mean learning_rate?")
