"""Every recipe that is shipped is read once its sources are there, and says what its run said."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.estimate.estimate import estimate
from pipeline.recipe.recipe import Recipe, read_recipe

_RECIPES = REPOSITORY / "recipes"
_NAMES = [path.stem for path in sorted(_RECIPES.glob("*.toml"))]
# What the flagship's published config.json says of its text model.
_FLAGSHIP = {
    "model_type": "ministral3",
    "num_hidden_layers": 40,
    "hidden_size": 5120,
    "intermediate_size": 32768,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 131072,
    "tie_word_embeddings": False,
}


def read_shipped(name: str, tmp_path: Path) -> Recipe:
    """Return the recipe, read beside small stand-ins of the sources that it names."""
    path = tmp_path / "recipes" / f"{name}.toml"
    path.parent.mkdir()
    shutil.copyfile(_RECIPES / path.name, path)
    document = tomllib.loads(path.read_text())
    if (source := document["base"]["source"]) != "demo":
        base = path.parent / source
        base.mkdir(parents=True)
        config = {"model_type": "mistral3", "text_config": _FLAGSHIP, "tie_word_embeddings": False}
        (base / "config.json").write_text(json.dumps(config))
    if (source := document["dataset"]["source"]) != "demo":
        rows = path.parent / source
        rows.mkdir(parents=True)
        (rows / "train.jsonl").write_text('{"problem": "p", "thinking": "t", "solution": "s"}\n')
    return read_recipe(path)


@pytest.mark.parametrize("name", _NAMES)
def test_it_is_read(name: str, tmp_path: Path) -> None:
    assert read_shipped(name, tmp_path).name == name


@pytest.mark.parametrize("name", _NAMES)
def test_it_is_planned_where_none_of_its_sources_is(name: str, tmp_path: Path) -> None:
    path = _RECIPES / f"{name}.toml"
    argv = ["-m", "pipeline", "plan", "--json", "--store", str(tmp_path), "--recipe", str(path)]
    told = subprocess.run(
        [sys.executable, *argv], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert told.returncode == 0, told.stderr
    plan = json.loads(told.stdout)
    assert plan["parameters"]["base"] > plan["parameters"]["trainable"] > 0
    assert plan["vram"]["train_bytes"] > 0
    asked = tomllib.loads(path.read_text())
    assert list(plan["gguf"]) == asked["gguf"]["types"]
    if asked["train"].get("accelerator") != "cpu":
        assert plan["vram"]["train_bytes"] < 24 << 30, "as published, it fits 24 GB"


def test_the_flagship_is_trained_as_it_was_published(tmp_path: Path) -> None:
    recipe = read_shipped("devstral-small-2-24b", tmp_path)
    train = recipe.train
    assert (train.method, train.rank, train.alpha, train.dropout) == ("qlora", 16, 16.0, 0.0)
    assert len(train.target_modules) == 7
    assert (train.learning_rate, train.warmup_steps, train.epochs) == (1e-4, 50, 3.0)
    assert (train.batch_size, train.gradient_accumulation) == (1, 4)
    assert (train.checkpoint, train.optimizer) == ("epoch:2", "adamw_8bit")
    assert recipe.dataset.sequence_length == 2048
    assert estimate(recipe).trainable_parameters == 92_405_760


def test_long_chains_of_reasoning_have_the_published_rank_and_length(tmp_path: Path) -> None:
    recipe = read_shipped("mistral-small-r1", tmp_path)
    assert (recipe.train.method, recipe.train.rank, recipe.train.alpha) == ("qlora", 64, 128.0)
    assert len(recipe.train.target_modules) == 7
    assert recipe.dataset.sequence_length == 8192


def test_the_small_adapter_is_on_the_attention_alone(tmp_path: Path) -> None:
    train = read_shipped("devstral-elixir-32gb", tmp_path).train
    assert (train.rank, train.alpha, train.dropout) == (8, 16.0, 0.05)
    assert train.target_modules == ("q_proj", "k_proj", "v_proj", "o_proj")
    assert (train.batch_size, train.gradient_accumulation, train.learning_rate) == (1, 8, 2e-4)
