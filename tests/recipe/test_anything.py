"""Whatever a recipe says, it is read or refused in words: every error with its line."""

import dataclasses
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.recipe.recipe import TABLES, read_recipe

_TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=8)
_SCALARS = st.one_of(
    st.integers(-(2**63), 2**63 - 1).map(str),
    st.floats(width=32).map(repr),
    st.booleans().map(lambda value: str(value).lower()),
    st.one_of(_TEXTS, st.just("demo"), st.just(".")).map(
        lambda text: json.dumps(text, ensure_ascii=False)
    ),
    st.sampled_from(["1979-05-27T07:32:00Z", "07:32:00", "inf", "-nan", "'''\n[train]\n'''"]),
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(st.from_regex(r"[a-z]{1,4}", fullmatch=True), inner, max_size=2).map(
            lambda pairs: f"{{{', '.join(f'{key} = {value}' for key, value in pairs.items())}}}"
        ),
    ),
    max_leaves=4,
)


@st.composite
def _write_table(draw: Any, name: str) -> str:
    fields = [field.name for field in dataclasses.fields(TABLES[name])]
    keys = st.one_of(st.sampled_from(fields), st.just("zzz"))
    pairs = draw(st.dictionaries(keys, _VALUES, max_size=4))
    if "source" in fields and draw(st.booleans()):
        pairs["source"] = '"demo"'
    return f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in pairs.items())


_RECIPES = st.lists(st.sampled_from([*TABLES]), unique=True).flatmap(
    lambda names: st.tuples(*map(_write_table, names)).map("".join)
)


@settings(max_examples=100)
@given(_RECIPES)
def test_anything_is_read_or_refused_in_words(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.toml"
        path.write_text(text, encoding="utf-8")
        try:
            read_recipe(path)
        except UsageError as error:
            assert error.what.startswith("the recipe has "), error
            lines = text.split("\n")
            for told in error.why.split("\n        "):
                where = re.match(rf"{re.escape(str(path))}(?::(\d+))?: \[", told)
                assert where, told
                assert where[1] is None or 1 <= int(where[1]) <= len(lines)
