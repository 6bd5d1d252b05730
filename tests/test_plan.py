"""The plan: every option of every rule is a recipe's field, or known to be none."""

from pathlib import Path

from pipeline.artifact.store import open_store
from pipeline.project import RECIPES, read_project
from pipeline.recipe import Recipe

# They follow from the artifact's own name, or are fixed.
_DERIVED = {"options.type", "options.batch_size"}


def _has_field(recipe: Recipe, field: str) -> bool:
    table, _, name = field.partition(".")
    return hasattr(getattr(recipe, table), name)


def test_every_option_is_named_as_the_recipe_does(tmp_path: Path) -> None:
    """So that `explain` and `plan` speak of what a person has written."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"problem": "p", "thinking": "t", "solution": "s"}\n')
    mine = tmp_path / "mine.toml"
    mine.write_text(
        '[base]\nsource = "demo"\n[dataset]\nsource = "rows.jsonl"\n[gguf]\ncalibration = 9\n'
    )
    for path in (RECIPES / "demo.toml", mine):
        project = read_project(path, open_store(tmp_path / "store"))
        for rule in project.rules:
            options = {f"options.{name}" for name in rule.options}
            unnamed = options - rule.fields.keys()
            assert unnamed <= _DERIVED, rule.name
            assert set(rule.fields) <= options
            assert all(_has_field(project.recipe, field) for field in rule.fields.values())


def test_an_importance_matrix_is_an_input_where_it_is_asked_for(tmp_path: Path) -> None:
    gguf = '[gguf]\ntypes = ["BF16", "Q4_K_M"]\n'
    for more, asked in [("", []), ("calibration = 9\n", ["gguf-Q4_K_M"])]:
        path = tmp_path / "recipe.toml"
        path.write_text('[base]\nsource = "demo"\n[dataset]\nsource = "demo"\n' + gguf + more)
        rules = {each.name: each for each in read_project(path, open_store(tmp_path)).rules}
        assert [name for name, rule in rules.items() if "imatrix" in rule.inputs] == asked
        assert ("imatrix" in rules) == bool(asked)
