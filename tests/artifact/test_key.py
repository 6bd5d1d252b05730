"""The key: one canonical text, and nothing in it that does not matter."""

import ast
import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifact.key import (
    REPOSITORY,
    _read_module,
    make_canonical_json,
    make_digest,
    make_key,
    make_key_document,
    read_source,
)
from pipeline.artifact.rule import Digest, Key, Rule

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), _JSON))
def test_canonical_json_ignores_order_and_keeps_every_value(document: dict[str, object]) -> None:
    text = make_canonical_json(document)
    assert make_canonical_json(dict(reversed(document.items()))) == text
    assert json.loads(text) == document


def test_canonical_json_refuses_what_json_lacks() -> None:
    with pytest.raises(ValueError, match="JSON"):
        make_canonical_json({"learning_rate": float("nan")})


def test_canonical_json_tells_types_apart() -> None:
    texts = [make_canonical_json({"x": value}) for value in (1, 1.0, True, "1", None, [1])]
    assert len(set(texts)) == len(texts)


_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False))
def test_a_float_keeps_every_bit_and_two_floats_two_texts(one: float, other: float) -> None:
    text = make_canonical_json([one])
    assert struct.pack("d", json.loads(text)[0]) == struct.pack("d", one)
    if other not in (math.inf, -math.inf):
        same = struct.pack("d", one) == struct.pack("d", other)
        assert (make_canonical_json([other]) == text) == same


@given(_TEXT, _TEXT)
def test_two_texts_are_one_only_when_every_character_is(one: str, other: str) -> None:
    """No normalization: a composed and a combined letter name two files."""
    assert (make_canonical_json([one]) == make_canonical_json([other])) == (one == other)
    assert (make_canonical_json({one: 1}) == make_canonical_json({other: 1})) == (one == other)


@given(_JSON, _JSON)
def test_two_documents_have_one_key_only_when_they_are_equal(one: Any, other: Any) -> None:
    """Types included: 1, 1.0 and true are three values, though Python calls them equal."""
    assert (make_key({"x": one}) == make_key({"x": other})) == (_describe(one) == _describe(other))


def _describe(value: Any) -> str:
    """Return a text that tells types apart and knows no order of names."""
    if isinstance(value, dict):
        return f"names {sorted((name, _describe(inner)) for name, inner in value.items())}"
    return repr([_describe(inner) for inner in value]) if isinstance(value, list) else repr(value)


def test_a_composed_and_a_combined_letter_differ() -> None:
    assert make_canonical_json(["\u00e9"]) != make_canonical_json(["e\u0301"])


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({1: "a"}, TypeError),
        ({"x": [{None: 1}]}, TypeError),
        ({"x": {True: 1}}, TypeError),
        ({"x": b"bytes"}, TypeError),
        ({"x": {1, 2}}, TypeError),
        ({"x": "\ud800"}, ValueError),
        ([math.inf], ValueError),
    ],
)
def test_what_has_no_one_text_is_refused(document: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        make_canonical_json(document)


def test_a_tuple_is_a_list() -> None:
    assert make_canonical_json({"x": ("a", "b")}) == make_canonical_json({"x": ["a", "b"]})


def _make_document(**changes: object) -> dict[str, object]:
    values: dict[str, object] = {
        "options": {"rank": 16},
        "environment": Digest("e"),
        "source": Digest("s"),
        "input_key": Key("i"),
    }
    values |= changes
    rule = Rule(name="adapter", image="train", stage="sft.adapter", options=values["options"])  # type: ignore[arg-type]
    return make_key_document(
        rule,
        input_keys={"text": values["input_key"]},  # type: ignore[dict-item]
        environment=values["environment"],  # type: ignore[arg-type]
        source=values["source"],  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "change",
    [{"options": {"rank": 17}}, {"environment": "f"}, {"source": "t"}, {"input_key": "j"}],
)
def test_key_changes_with_everything_that_matters(change: dict[str, object]) -> None:
    assert make_key(_make_document(**change)) != make_key(_make_document())


def test_source_is_the_same_in_another_process_and_environment() -> None:
    code = "from pipeline.artifact.key import *; print(make_digest(read_source('demo.rows')))"
    told = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == make_digest(read_source("demo.rows"))


def test_source_is_what_the_stage_imports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "pipeline"
    (package / "a").mkdir(parents=True)
    (package / "b").mkdir()
    (package / "job.py").write_text("import json\n")
    (package / "a" / "stage.py").write_text(
        "from pipeline.b import (\n    part,\n)\nif 1:\n    import pipeline.b.late\n"
    )
    for name in ("part", "late", "other"):
        (package / "b" / f"{name}.py").write_text("x = 1\n")
    monkeypatch.setattr("pipeline.artifact.key.REPOSITORY", tmp_path)
    assert list(read_source("a.stage")) == [
        "pipeline/a/stage.py",
        "pipeline/b/late.py",
        "pipeline/b/part.py",
        "pipeline/job.py",
    ]


def test_what_only_talks_is_no_source_nor_is_what_it_imports() -> None:
    """The answer to a full memory reckons with the plan's model; that trains nothing anew."""
    found = read_source("sft.training")
    assert "pipeline/sft/method.py" in found
    assert not [path for path in found if path.startswith(("pipeline/estimate", "pipeline/recipe"))]


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "pipeline").rglob("*.py")), ids=lambda path: path.stem
)
def test_no_import_is_overlooked(path: Path) -> None:
    """The package's imports are read by a pattern; Python's own parser says what they are."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    assert {name for name in names if name.startswith("pipeline")} <= set(_read_module(path)[1])
