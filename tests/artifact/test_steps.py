"""Steps: why something is built, which fields changed, and what follows from it."""

from pathlib import Path

import pytest

from pipeline.artifact.history import Change, History
from pipeline.artifact.links import write_link
from pipeline.artifact.rule import Rule
from pipeline.artifact.steps import find_dependents, make_steps
from pipeline.artifact.store import Store, open_store
from tests.artifact.small_build import ENVIRONMENTS, build_small, make_rules, make_small_steps


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def test_reasons_name_the_recipes_fields(store: Store) -> None:
    def explain(rules: tuple[Rule, ...] = ()) -> list[str]:
        history = History(store, "small")
        steps = make_small_steps(store, rules)
        missing = [step.rule.name for step in steps if not step.artifact]
        return [history.explain_build(step, missing) for step in steps if not step.artifact]

    assert explain() == ["never built", "never built"]
    build_small(store)
    assert explain() == []
    assert explain(make_rules(held_out=6)) == ["changed: options.held_out"]
    base, rows = explain(make_rules(seed=2))
    assert base == "changed: demo.seed"
    assert rows == "changed: options.sources"


def test_changes_are_against_this_recipes_last_build(store: Store) -> None:
    mine = build_small(store, make_rules(held_out=6))
    write_link(store.out / "mine", mine["rows"])
    build_small(store, make_rules(held_out=7))
    *_, step = make_small_steps(store, make_rules(held_out=8))
    (change,) = History(store, "mine").find_changes(step) or []
    assert change == Change(artifact="rows", field="options.held_out", old=6, new=8)
    (change,) = History(store, "other").find_changes(step) or []
    assert change.old == 7, "without a link, what was sealed last"


def test_a_changed_lock_or_module_is_named_and_not_just_a_digest(store: Store) -> None:
    build_small(store)
    environments = {"train": {"python": "another"}}
    base, _ = make_steps(make_rules(), ["rows"], store, environments)
    (change,) = History(store, "small").find_changes(base) or []
    assert change == Change(
        artifact="base", field="environment.python", old="this one", new="another"
    )
    assert "pipeline/demo/rows.py" in base.source
    assert ENVIRONMENTS["train"] == {"python": "this one"}


def test_what_follows_is_all_that_is_made_from_it_in_order() -> None:
    rules = [
        Rule(name=name, image="train", stage="demo.rows", options={}, inputs=inputs)
        for name, inputs in (
            ("a", {}),
            ("b", {"x": "a"}),
            ("c", {}),
            ("d", {"x": "c", "y": "b"}),
        )
    ]
    assert find_dependents(rules, "a") == ["b", "d"]
    assert find_dependents(rules, "c") == ["d"]
    assert find_dependents(rules, "d") == []
