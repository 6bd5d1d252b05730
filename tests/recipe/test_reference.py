"""recipes/reference.toml and docs/recipe.md are what the fields say, and a recipe can be that."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.recipe.recipe import TABLES
from pipeline.recipe.reference import main, make_document, make_reference

_WRITTEN = {"recipes/reference.toml": make_reference, "docs/recipe.md": make_document}


@pytest.mark.parametrize("name", _WRITTEN)
def test_what_is_written_is_current(name: str) -> None:
    written = (REPOSITORY / name).read_text(encoding="utf-8")
    assert written == _WRITTEN[name](), "run `make reference`"


def test_the_reference_holds_every_default() -> None:
    document = tomllib.loads(make_reference())
    assert list(document) == list(TABLES)
    for name, table_type in TABLES.items():
        for field in dataclasses.fields(table_type):
            value = document[name].pop(field.name)
            if field.default is not dataclasses.MISSING:
                told = tuple(value) if isinstance(value, list) else value
                assert (told, type(told)) == (field.default, type(field.default))
        assert document[name] == {}


def test_every_field_is_documented_with_type_range_and_default() -> None:
    text = make_document()
    for name, table_type in TABLES.items():
        section = text.partition(f"\n## [{name}]\n")[2].partition("\n##")[0]
        for field in dataclasses.fields(table_type):
            (row,) = re.findall(rf"^\| `{field.name}` \| .*$", section, re.MULTILINE)
            cells = re.split(r"(?<!\\) ?\| ?", row)[1:-1]
            assert len(cells) == 4
            assert all(cells), row
    problems = text.partition("\n### [[evaluate.rows]]\n")[2].partition("\n##")[0]
    assert "| `source` | text; required | none |" in problems
    assert "# # A file of problems of your own" in make_reference()
    assert "| `rank` | whole number, 1 to 1024 | `16` | LoRA rank r. |" in text
    assert "| `method` | text, one of: " in text


def test_each_file_is_written_by_its_ending(tmp_path: Path) -> None:
    paths = [tmp_path / "reference.toml", tmp_path / "docs" / "recipe.md"]
    main([str(path) for path in paths])
    assert [path.read_text() for path in paths] == [make_reference(), make_document()]
