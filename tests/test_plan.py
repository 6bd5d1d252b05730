"""The plan: every option of every rule is a recipe's field, or known to be none."""

import json
from pathlib import Path

import pytest

from pipeline.artifact.key import read_source
from pipeline.artifact.steps import find_dependents
from pipeline.artifact.store import open_store
from pipeline.demo.shape import make_config
from pipeline.estimate import base_config
from pipeline.plan import list_results, list_targets
from pipeline.project import RECIPES, read_project
from pipeline.recipe.recipe import Recipe

# They follow from the artifact's own name, or are fixed.
_DERIVED = {"options.type", "options.batch_size"}
# The same for every recipe, so that all of them share the file.
_FIXED = {"base-gguf": {"options.model_name", "options.tensor_types"}}


def _has_field(recipe: Recipe, field: str) -> bool:
    table, _, name = field.partition(".")
    return hasattr(getattr(recipe, table), name)


def _write_hub_recipe(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a recipe with a base and rows on the hub, whose sizes a copy of config.json tells."""
    config = make_config(256)
    config["text_config"]["max_position_embeddings"] = 32768
    (folder / "some-base").mkdir(parents=True)
    (folder / "some-base" / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(base_config, "MODELS", folder)
    path = folder / "hub.toml"
    pinned = f'revision = "{"0" * 40}"'
    path.write_text(
        f'[base]\nsource = "hf://owner/some-base"\n{pinned}\n'
        f'[dataset]\nsource = "hf://owner/rows"\n{pinned}\n'
        f'[[dataset.more]]\nsource = "hf://owner/rows"\n{pinned}\nkeep = ["language=en"]\n'
    )
    return path


def test_what_is_fetched_has_a_network_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write_hub_recipe(tmp_path, monkeypatch)
    rules = {rule.name: rule for rule in read_project(path, open_store(tmp_path)).rules}
    fetched = [name for name, rule in rules.items() if rule.fetches]
    assert [rules[name].stage for name in fetched] == ["hub.dataset", "hub.checkpoint"]
    assert all(rules[name].resumes for name in fetched)
    assert dict(rules["rows"].inputs) == {"source-1": fetched[0], "source-2": fetched[0]}
    assert not rules["rows"].sources


def test_no_problems_no_answers(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    text = '[base]\nsource = "demo"\n[dataset]\nsource = "demo"\n'
    path.write_text(text + "[evaluate]\nproblems = 0\nbefore_export = true\n")
    rules = read_project(path, open_store(tmp_path)).rules
    assert list_targets(rules, []) == ["gguf-Q4_K_M"]


def test_every_option_is_named_as_the_recipe_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that `explain` and `plan` speak of what a person has written."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"problem": "p", "thinking": "t", "solution": "s"}\n')
    mine = tmp_path / "mine.toml"
    mine.write_text(
        '[base]\nsource = "demo"\n[dataset]\nsource = "rows.jsonl"\n[gguf]\ncalibration = 9\n'
    )
    for path in (RECIPES / "demo.toml", mine, _write_hub_recipe(tmp_path, monkeypatch)):
        project = read_project(path, open_store(tmp_path / "store"))
        for rule in project.rules:
            options = {f"options.{name}" for name in rule.options}
            unnamed = options - rule.fields.keys()
            assert unnamed <= _DERIVED | _FIXED.get(rule.name, set()), rule.name
            assert set(rule.fields) <= options
            assert all(_has_field(project.recipe, field) for field in rule.fields.values())


def test_another_look_of_the_page_trains_nothing_anew(tmp_path: Path) -> None:
    """Nothing is made from the report, and no other artifact's key holds the page's modules."""
    rules = read_project(RECIPES / "demo.toml", open_store(tmp_path)).rules
    assert find_dependents(rules, "dataset-report") == []
    pages = {"pipeline/data/page.py", "pipeline/data/plots.py", "pipeline/data/report.py"}
    holding = {rule.name for rule in rules if pages & read_source(rule.stage).keys()}
    assert holding == {"dataset-report"}


def test_an_importance_matrix_is_an_input_where_it_is_asked_for(tmp_path: Path) -> None:
    gguf = '[gguf]\ntypes = ["BF16", "Q4_K_M"]\n'
    for more, asked in [("", []), ("calibration = 9\n", ["gguf-Q4_K_M"])]:
        path = tmp_path / "recipe.toml"
        path.write_text('[base]\nsource = "demo"\n[dataset]\nsource = "demo"\n' + gguf + more)
        rules = {each.name: each for each in read_project(path, open_store(tmp_path)).rules}
        assert [name for name, rule in rules.items() if "imatrix" in rule.inputs] == asked
        assert ("imatrix" in rules) == bool(asked)


def test_weights_that_are_trained_whole_are_the_base_of_everything_after(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    text = '[base]\nsource = "demo"\n[dataset]\nsource = "demo"\n[train]\nmethod = "full"\n'
    path.write_text(text + "[gguf]\ncalibration = 9\n[evaluate]\nbefore_export = true\n")
    project = read_project(path, open_store(tmp_path))
    rules = {each.name: each for each in project.rules}
    assert rules["gguf-Q4_K_M"].inputs == {"base": "tuned", "imatrix": "imatrix"}
    assert rules["imatrix"].inputs == {"base": "tuned", "rows": "rows"}
    assert rules["answers-checkpoint"].inputs["tuned"] == "tuned"
    assert not {"adapter", "merged", "adapter-gguf"} & set(rules)
    assert list_targets(project.rules, ["trained"]) == ["tuned"]
    assert "tuned" in list_results(project.rules)


def test_another_choice_of_a_checkpoint_trains_nothing(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    text = '[base]\nsource = "demo"\n[dataset]\nsource = "demo"\n[train]\n'
    keys = []
    for more in (
        "",
        'checkpoint = "best"\n',
        'checkpoint = "step:1200"\n',
        'checkpoint = "best"\nbest_by = "accuracy"\n',
        'checkpoint = "best"\nbest_by = "accuracy"\npatience = 2\n',
    ):
        path.write_text(text + more)
        steps = read_project(path, open_store(tmp_path / "store")).make_steps(["adapter"])
        keys.append({step.rule.name: step.key for step in steps})
    runs, choices = ([each[name] for each in keys] for name in ("training", "adapter"))
    assert len(set(runs[:4])) == 1
    assert runs[4] != runs[0]
    assert len(set(choices)) == 5


def test_where_the_processes_are_is_in_no_key(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    text = '[base]\nsource = "demo"\n[dataset]\nsource = "demo"\n[train]\nprocesses = 4\n'
    keys = set()
    for more in ("", 'hosts = 2\naddress = "10.0.0.1:29500"\n'):
        path.write_text(text + more)
        keys |= read_project(path, open_store(tmp_path / "store")).list_directories()
    names = [name.partition("-")[2] for name in keys]
    assert len(names) == len(set(names))


def test_the_template_is_in_the_key_of_all_that_carries_it(tmp_path: Path) -> None:
    """By its text: what is served is what was trained, and a moved file changes nothing."""
    recipe, template = tmp_path / "mine.toml", tmp_path / "mine.jinja"
    head = '[base]\nsource = "demo"\n[gguf]\ncalibration = 9\n[dataset]\nsource = "demo"\n'
    recipe.write_text(f'{head}template = "mine.jinja"\n')
    found = []
    for source in ("a{{ messages }}", "b{{ messages }}"):
        template.write_text(source)
        rules = read_project(recipe, open_store(tmp_path / "store")).rules
        found.append({rule.name: rule.options.get("chat_template") for rule in rules})
        assert str(tmp_path) not in str([dict(rule.options) for rule in rules])
    carrying = {name for name in found[0] if found[0][name] != found[1][name]}
    assert carrying == {"text", "imatrix", "adapter-gguf", "gguf-Q4_K_M", "base-gguf"}
    assert found[1]["text"] == "b{{ messages }}"
