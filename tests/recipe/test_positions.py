"""Where a recipe says what: the line of each table, key and item, in every form of TOML."""

import json
import tomllib

from hypothesis import given
from hypothesis import strategies as st

from pipeline.recipe.positions import find_lines

_TEXT = '''\
# [not] a = "table"
top = 1

[base] # a comment with "quotes
source = "a # b ] = [train]"
'quoted key' = 1
dotted.inner = 2
[gguf]
types = [ # first
  "Q4_K_M", # "Q8_0",

  "Q8_0",
]
text = """
rank = 16
[train]
\\""" still text""""
literal = \'\'\'
[serve]\'\'\'
after = {a = 1, b = [3, 4], c = {d = 5}}
[dataset]
source = "x"
[[dataset.more]]
source = "y"
[[dataset.more]]
weight = 2.5
when = 1979-05-27 07:32:00.5
[dataset.more.sub]
key = 1
'''


def test_every_form_of_a_document() -> None:
    lines = find_lines(_TEXT)
    assert lines == {
        ("top",): 2,
        ("base",): 4,
        ("base", "source"): 5,
        ("base", "quoted key"): 6,
        ("base", "dotted"): 7,
        ("base", "dotted", "inner"): 7,
        ("gguf",): 8,
        ("gguf", "types"): 9,
        ("gguf", "types", 0): 10,
        ("gguf", "types", 1): 12,
        ("gguf", "text"): 14,
        ("gguf", "literal"): 18,
        ("gguf", "after"): 20,
        ("gguf", "after", "a"): 20,
        ("gguf", "after", "b"): 20,
        ("gguf", "after", "b", 0): 20,
        ("gguf", "after", "b", 1): 20,
        ("gguf", "after", "c"): 20,
        ("gguf", "after", "c", "d"): 20,
        ("dataset",): 21,
        ("dataset", "source"): 22,
        ("dataset", "more"): 23,
        ("dataset", "more", 0): 23,
        ("dataset", "more", 0, "source"): 24,
        ("dataset", "more", 1): 25,
        ("dataset", "more", 1, "weight"): 26,
        ("dataset", "more", 1, "when"): 27,
        ("dataset", "more", 1, "sub"): 28,
        ("dataset", "more", 1, "sub", "key"): 29,
    }
    # What the reader has found is what the document holds.
    document = tomllib.loads(_TEXT)
    for place in lines:
        value = document
        for part in place:
            value = value[part]  # type: ignore[index]


_TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=20)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), _TEXTS, max_size=8))
def test_keys_stand_where_they_were_written_whatever_their_values_say(
    values: dict[str, str],
) -> None:
    text = "[t]\n" + "".join(
        f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items()
    )
    assert tomllib.loads(text)["t"] == values
    lines = dict(find_lines(text))
    assert lines.pop(("t",)) == 1
    assert lines == {("t", key): number for number, key in enumerate(values, start=2)}


@given(st.lists(_TEXTS.filter(lambda text: "'''" not in text and "\\" not in text), max_size=6))
def test_texts_of_several_lines_hold_no_keys(texts: list[str]) -> None:
    text = ""
    expected: dict[tuple[str | int, ...], int] = {}
    for number, each in enumerate(texts):
        expected[(f"k{number}",)] = text.count("\n") + 1
        quote = "'''" if number % 2 or '"' in each else '"""'
        body = each.rstrip("'")
        text += f"k{number} = {quote}\n{body}\nx = 1\n[t]\n{quote}\n"
    tomllib.loads(text)
    assert find_lines(text) == expected
