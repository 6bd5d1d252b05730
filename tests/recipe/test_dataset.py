"""[dataset]: several sources, each with how it is read; what cannot be meant is told at once."""

import re
from pathlib import Path

import pytest

from pipeline.data.source import Source, parse_source
from pipeline.data.templates import BUILT_IN
from pipeline.errors import UsageError
from pipeline.recipe.dataset import Dataset
from pipeline.recipe.recipe import Recipe, read_recipe
from pipeline.recipe.row_sources import list_row_paths, make_row_sources
from pipeline.recipe.template import read_template_source
from pipeline.source_files import list_row_files

_HEAD = '[base]\nsource = "demo"\n[dataset]\n'


def read(folder: Path, text: str) -> Recipe:
    path = folder / "mine.toml"
    path.write_text(_HEAD + text)
    return read_recipe(path)


def read_error(folder: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        read(folder, text)
    return caught.value.why


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one.jsonl", "set/data/train-0.parquet", "set/data/test-0.parquet", "two/a.csv"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def test_a_template_is_a_name_or_a_file(folder: Path) -> None:
    source = "{% for message in messages %}{{ message.content }}{% endfor %}"
    (folder / "mine.jinja").write_text(source, encoding="utf-8")
    made = {}
    for template in ("checkpoint", "chatml", "mine.jinja"):
        dataset = read(folder, f'source = "one.jsonl"\ntemplate = "{template}"\n').dataset
        made[template] = read_template_source(dataset.template)
    assert made == {"checkpoint": "", "chatml": BUILT_IN["chatml"], "mine.jinja": source}


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("chatlm", "no file: No such file or directory; did you mean chatml?"),
        ("two", "no file: Is a directory"),
        ("empty.jinja", "empty.jinja: it is empty"),
        ("latin.jinja", "it is not UTF-8: unexpected end of data at byte 0"),
        ("mute.jinja", "mute.jinja: it never writes what a user says"),
    ],
)
def test_a_template_that_cannot_be_read(folder: Path, template: str, why: str) -> None:
    (folder / "empty.jinja").write_text("\n")
    (folder / "latin.jinja").write_bytes(b"\xe9")
    (folder / "mute.jinja").write_text("{{ bos_token }}")
    told = read_error(folder, f'source = "one.jsonl"\ntemplate = "{template}"\n')
    assert "[dataset] template = " in told
    assert why in told


_SEVERAL = """
source = "one.jsonl"
keep = ["language=en"]
held_out = 400
[[dataset.more]]
source = "set"
weight = 2
[[dataset.more]]
source = "two"
prompt = "[[{a}]]"
completion = "{b}"
"""


def test_several_sources(folder: Path) -> None:
    dataset = read(folder, _SEVERAL).dataset
    assert [Path(rows.source).name for rows in dataset.sources] == ["one.jsonl", "set", "two"]
    assert [rows.weight for rows in dataset.sources] == [1.0, 2.0, 1.0]
    assert [path.name for path in list_row_paths(dataset)] == [
        "one.jsonl",
        "train-0.parquet",
        "a.csv",
    ]


def test_the_stage_is_told_names_and_digests_and_apart_from_them_the_places(folder: Path) -> None:
    """Each source is shown by itself: never a folder that happens to hold several."""
    made = make_row_sources(read(folder, _SEVERAL).dataset, folder / "digests")
    assert made.paths == {
        "source-1": folder / "one.jsonl",
        "source-2": folder / "set",
        "source-3": folder / "two",
    }
    sources = [parse_source(text) for text in made.sources]
    assert [source.files[0].name for source in sources] == [
        "source-1.jsonl",
        "data/train-0.parquet",
        "a.csv",
    ]
    assert sources[0].keep == ("language=en",)
    assert sources[2].prompt == "[[{a}]]"
    moved = folder.rename(folder.with_name("moved"))
    again = make_row_sources(read(moved, _SEVERAL).dataset, moved / "digests")
    assert again.sources == made.sources
    assert again.paths["source-2"] == moved / "set"


_ON_HUB = """
source = "hf://owner/some.set"
revision = "COMMIT"
subset = "main"
held_out = 400
[[dataset.more]]
source = "two"
[[dataset.more]]
source = "hf://owner/some.set"
revision = "COMMIT"
subset = "main"
keep = ["language=en"]
[[dataset.more]]
source = "hf://owner/some.set"
revision = "COMMIT"
split = "test"
""".replace("COMMIT", "0123456789" * 4)


def test_the_hubs_sources_are_named_by_their_commit(folder: Path) -> None:
    """A split that two sources read is one artifact; nothing of it is looked for here."""
    dataset = read(folder, _ON_HUB).dataset
    made = make_row_sources(dataset, folder / "digests")
    assert made.paths == {"source-2": folder / "two"}
    assert {label: vars(split) for label, split in made.fetched.items()} == {
        label: {
            "repository": "owner/some.set",
            "revision": "0123456789" * 4,
            "subset": subset,
            "split": split,
        }
        for label, subset, split in (
            ("source-1", "main", "train"),
            ("source-3", "main", "train"),
            ("source-4", "", "test"),
        )
    }
    names = [split.artifact for split in made.fetched.values()]
    assert names[0] == names[1] != names[2]
    assert re.fullmatch(r"hub-some\.set-[0-9a-f]{8}", names[0])
    assert [path.name for path in list_row_paths(dataset)] == ["a.csv"]


def test_raw_text_alone_cannot_be_asked(folder: Path) -> None:
    text = 'source = "texts"\n[evaluate]\nproblems = '
    (folder / "texts").mkdir()
    (folder / "texts" / "a.txt").write_text("a")
    assert "raw text asks nothing" in read_error(folder, text + "4\n")
    assert read(folder, text + "0\n").evaluate.problems == 0
    mixed = '[[dataset.more]]\nsource = "one.jsonl"\n'
    read(folder, text.replace("[evaluate]", mixed + "[evaluate]") + "4\n")


def test_every_field_of_a_source_reaches_the_stage() -> None:
    """But for the place, which is no part of a key, and what is of the whole table."""
    from dataclasses import fields

    from pipeline.recipe.dataset import Rows
    from pipeline.recipe.row_sources import _SHARED

    told = {each.name for each in fields(Source)} - {"files", "is_file", "hub"}
    fetched = {"source", "revision", "subset"}
    assert set(_SHARED) == told == {each.name for each in fields(Rows)} - fetched
    defaults = Dataset(source="demo")
    assert all(getattr(defaults, name) == getattr(Source(), name) for name in _SHARED)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('source = "one.jsonl"\ncolumns = ["a"]', "exactly three names"),
        ('source = "one.jsonl"\nprompt = "{a}"', "need each other"),
        ('source = "one.jsonl"\nprompt = "{a"\ncompletion = "{b}"', "names no column"),
        ('source = "one.jsonl"\nformat = "template"', "needs prompt"),
        ('source = "one.jsonl"\nformat = "text"\nprompt = "{a}"\ncompletion = "{b}"', "not 'text'"),
        ('source = "one.jsonl"\nformat = "alpacas"', "must be one of"),
        ('source = "one.jsonl"\nkeep = ["language"]', "'language' must be"),
        ('source = "one.jsonl"\nrename = ["=messages"]', "'=messages' must be"),
        ('source = "one.jsonl"\nnear_duplicates = 0.1', "0.5 to 1"),
        ('source = "one.jsonl"\nmore = ["two"]', "must be a table"),
        (
            'source = "one.jsonl"\n[[dataset.more]]\nsource = "three"',
            '[[dataset.more]] source = "three": no file',
        ),
        ('source = "one.jsonl"\n[[dataset.more]]\nweigth = 2', "did you mean weight?"),
        (
            'source = "one.jsonl"\n[[dataset.more]]\nweight = 2',
            "[[dataset.more]] source is missing",
        ),
        ('source = "one.jsonl"\n[[dataset.more]]\nsource = "demo"', "no file"),
        ('source = "demo"\n[[dataset.more]]\nsource = "two"', "no further sources"),
        ('source = "mine.toml"', "must end in one of"),
        ('source = "hf://a/b"', "hf://a/b needs the commit"),
        ('source = "hf://a/b"\nrevision = "main"', "all 40 digits"),
        (f'source = "hf://a"\nrevision = "{"0" * 40}"', "not of the form hf://owner/name"),
        (f'source = "hf://datasets/a/b"\nrevision = "{"0" * 40}"', "not of the form"),
        (f'source = "one.jsonl"\nrevision = "{"0" * 40}"', "only a source on the hub"),
        ('source = "one.jsonl"\nsubset = "main"', "only a source on the hub"),
        (_ON_HUB.replace("0123", "4567", 1), "owner/some.set is read at two commits"),
        ('source = "."', "must end"),
    ],
)
def test_what_cannot_be_meant(folder: Path, text: str, said: str) -> None:
    if said == "must end":
        (folder / "one.jsonl").unlink()
        for name in ("set", "two"):
            for path in (folder / name).rglob("*.*"):
                path.unlink()
        said = "ends in one of"
    assert said in read_error(folder, text)


def test_a_directory_s_rows_are_those_of_the_split(folder: Path) -> None:
    assert list_row_files(folder / "set", "test") == ("data/test-0.parquet",)
    assert list_row_files(folder / "set", "dev") == (
        "data/test-0.parquet",
        "data/train-0.parquet",
    )
    (folder / "set" / "README.md").write_text("train")
    (folder / "set" / "dataset_info.json").write_text("{}")
    (folder / "set" / ".cache").mkdir()
    (folder / "set" / ".cache" / "train.jsonl").write_text("{}")
    assert list_row_files(folder / "set", "train") == ("data/train-0.parquet",)


def test_a_saved_dataset_is_all_its_files(folder: Path) -> None:
    for name in ("state.json", "dataset_info.json", "data-00000-of-00001.arrow"):
        (folder / "two" / name).write_text("{}")
    names = list_row_files(folder / "two", "train")
    assert names == ("a.csv", "data-00000-of-00001.arrow", "dataset_info.json", "state.json")
