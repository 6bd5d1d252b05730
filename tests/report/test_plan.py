"""The plan's document is what its schema says; for people it is text, coloured on a terminal."""

import copy
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.store import open_store
from pipeline.project import RECIPES, read_project
from pipeline.report.colour import paint_table
from pipeline.report.plan_text import format_plan
from pipeline.report.table import format_table
from pipeline.verbs.plan import describe
from tests.json_schema import find_faults

_SCHEMA = json.loads((REPOSITORY / "docs" / "plan.schema.json").read_text(encoding="utf-8"))
_FLAGSHIP = """
[base]
source = "{folder}/Devstral-Small-2-24B-Instruct-2512"
[dataset]
source = "traces.jsonl"
[train]
max_steps = 100
[gguf]
types = ["Q4_K_M", "Q8_0"]
calibration = 50
"""


def _write_flagship(folder: Path) -> Path:
    """Write a recipe of a base and rows that are not there."""
    recipe = folder / "flagship.toml"
    recipe.write_text(_FLAGSHIP.format(folder=folder))
    return recipe


def _plan(recipe: Path, folder: Path, *wanted: str, price: float | None = None) -> dict[str, Any]:
    project = read_project(recipe, open_store(folder / "store"), planning=True)
    return describe(project, wanted or ("answers",), price=price)


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("plans")
    flagship = _write_flagship(folder)
    return {
        "demo": _plan(RECIPES / "demo.toml", folder),
        "flagship": _plan(flagship, folder),
        "priced": _plan(flagship, folder, "merged", price=2.5),
    }


@pytest.mark.parametrize("name", ["demo", "flagship", "priced"])
def test_the_document_is_what_the_schema_says(plans: dict[str, Any], name: str) -> None:
    assert find_faults(json.loads(json.dumps(plans[name])), _SCHEMA) == []


def _list_objects(schema: Any, at: str = "$") -> list[tuple[str, Any]]:
    found = [(at, schema)] if isinstance(schema, dict) and "properties" in schema else []
    below = schema.items() if isinstance(schema, dict) else []
    return found + [pair for key, each in below for pair in _list_objects(each, f"{at}.{key}")]


def test_the_schema_leaves_no_field_open() -> None:
    objects = _list_objects(_SCHEMA)
    assert len(objects) > 10
    for at, each in objects:
        assert set(each["required"]) == set(each["properties"]), at
        assert each["additionalProperties"] is False, at


def _drop_disk(plan: dict[str, Any]) -> None:
    del plan["disk"]["free_bytes"]


def _misspell(plan: dict[str, Any]) -> None:
    plan["verdict"] = plan.pop("verdicts")


def _shorten_key(plan: dict[str, Any]) -> None:
    plan["artifacts"][0]["key"] = plan["artifacts"][0]["key"][:12]


def _break_state(plan: dict[str, Any]) -> None:
    plan["artifacts"][0]["state"] = "built"


def _round(plan: dict[str, Any]) -> None:
    plan["gguf"]["Q8_0"]["bytes"] = 1.5


def _answer_by_number(plan: dict[str, Any]) -> None:
    plan["artifacts"][0]["could_be_deleted"] = 0


def _go_negative(plan: dict[str, Any]) -> None:
    plan["memory"]["train"]["parts"]["adapters"] = -1


@pytest.mark.parametrize(
    "damage",
    [
        *(_drop_disk, _misspell, _shorten_key, _break_state),
        *(_round, _answer_by_number, _go_negative),
    ],
)
def test_the_schema_refuses_another_document(
    plans: dict[str, Any], damage: Callable[[dict[str, Any]], None]
) -> None:
    plan = copy.deepcopy(plans["demo"])
    damage(plan)
    assert find_faults(plan, _SCHEMA)


def test_what_is_not_at_hand_has_sizes_and_no_key(plans: dict[str, Any]) -> None:
    plan = plans["flagship"]
    assert {each["key"] for each in plan["artifacts"]} == {None}
    assert {each["state"] for each in plan["artifacts"]} == {"build"}
    assert plan["parameters"] == {"base": 23_572_403_200, "trainable": 92_405_760}
    assert plan["rows"] is None
    assert plan["training"]["steps"] == 100
    assert plan["base"]["origin"] == "shipped copy"


def test_a_price_gives_the_cost(plans: dict[str, Any]) -> None:
    assert {each["cost"] for each in plans["flagship"]["gpus"]} == {None}
    for each in plans["priced"]["gpus"]:
        assert each["cost"] == pytest.approx(each["total_s"] / 3600 * 2.5)
    assert " cost" in format_plan(plans["priced"])
    assert " cost" not in format_plan(plans["flagship"])


def test_a_card_that_does_not_train_has_no_time(plans: dict[str, Any]) -> None:
    plan = copy.deepcopy(plans["priced"])
    plan["gpus"][0] |= {"trains": False, "longest_sequence": 0}
    (line,) = [each for each in format_plan(plan).splitlines() if each.startswith("RTX 3090")]
    assert line.split()[4:6] == ["no", "none"]
    assert line.split()[-3:] == ["-", "-", "-"]


def test_the_sums_are_those_of_their_parts(plans: dict[str, Any]) -> None:
    for plan in plans.values():
        for verb in ("train", "serve"):
            memory = plan["memory"][verb]
            assert sum(memory["parts"].values()) == memory["bytes"]
            assert memory["bytes"] == plan["vram"][f"{verb}_bytes"]
        built = sum(each["bytes"] for each in plan["artifacts"] if each["state"] == "build")
        assert plan["disk"]["needed_bytes"] == built


def test_people_read_what_the_document_says(plans: dict[str, Any]) -> None:
    text = format_plan(plans["flagship"])
    for said in (
        "parameters: 23,572,403,200 in 363 tensors; trainable 92,405,760 (0.39 %)",
        "weights, 4-bit (NF4)",
        "key-value cache",
        "RTX 3090",
        "H200",
        "steps: 100\n",
        *plans["flagship"]["verdicts"],
    ):
        assert said in text
    assert "not counted" in text
    assert max(map(len, text.splitlines())) < 140


def test_colour_changes_nothing_but_colour(plans: dict[str, Any]) -> None:
    for plan in plans.values():
        coloured = format_plan(plan, colour=True)
        assert "\033[33mbuild\033[0m" in coloured
        assert re.sub(r"\033\[\d+m", "", coloured) == format_plan(plan)


def test_a_word_is_painted_in_its_own_column_alone() -> None:
    table = format_table(("name", "state"), [("build", "cached"), ("cached", "build")])
    painted = paint_table(table, {"state": {"cached": "green", "build": "yellow"}})
    assert painted.splitlines()[2:] == [
        "build   \033[32mcached\033[0m",
        "cached  \033[33mbuild\033[0m",
    ]


@pytest.mark.parametrize(
    ("variables", "is_coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
)
def test_only_a_terminal_is_written_to_in_colour(
    tmp_path: Path, variables: dict[str, str], is_coloured: bool
) -> None:
    argv = [sys.executable, "-m", "pipeline", "plan", "rows", "--store", str(tmp_path)]
    environment = {**os.environ, "TERM": "xterm", **variables}
    ours, theirs = pty.openpty()
    with (
        os.fdopen(ours, "rb", buffering=0) as terminal,
        subprocess.Popen(argv, cwd=REPOSITORY, env=environment, stdout=theirs) as told,
    ):
        os.close(theirs)
        written = b""
        while chunk := _read(terminal.fileno()):
            written += chunk
    assert told.returncode == 0
    assert (b"\033[" in written) == is_coloured
    piped = subprocess.run(argv, cwd=REPOSITORY, env=environment, capture_output=True, check=True)
    assert b"\033[" not in piped.stdout


def _read(terminal: int) -> bytes:
    """Return some bytes; none when the other end is closed, which the kernel tells by EIO."""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""
