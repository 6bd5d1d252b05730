"""What the recipe says of one source of rows, as the stage `data.rows` gets it.

A source is one JSON text among the stage's options, so that it is whole in the artifact's key:
the names and digests of its files, and how they are read. Standard library alone: the plan writes
it, the stage reads it.
"""

import json
from dataclasses import dataclass
from typing import Any

AUTO = "auto"
TEMPLATE = "template"
PREFERENCE = "preference"
FORMATS = (
    AUTO,
    "messages",
    "sharegpt",
    "alpaca",
    "prompt_completion",
    "reasoning",
    "text",
    PREFERENCE,
    TEMPLATE,
)

# How a file is read, by the end of its name.
READERS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".txt": "text",
}

# What a directory written by datasets' save_to_disk holds: one split, or several.
SAVED = ("state.json", "dataset_dict.json")

HUB = "hf://"


def make_label(number: int) -> str:
    """Return the input of the stage where the source of that number, from 1 on, lies."""
    return f"source-{number}"


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of a source, by its name inside the source, and the digest that was planned."""

    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source: a file, a directory of files, a saved dataset, or what was fetched of `hub`, a
    data set there.

    Of one file (`is_file`) the name is no part of it: the recipe may call it anything, and so rows
    name it by the source's number.
    """

    files: tuple[File, ...] = ()
    is_file: bool = False
    hub: str = ""
    split: str = "train"
    format: str = AUTO
    columns: tuple[str, ...] = ("problem", "thinking", "solution")
    rename: tuple[str, ...] = ()
    prompt: str = ""
    completion: str = ""
    system: str = ""
    domain: str = "domain"
    keep: tuple[str, ...] = ()
    weight: float = 1.0


def write_source(source: Source) -> str:
    """Return the source's JSON text."""
    files = [vars(file) for file in source.files]
    return json.dumps(vars(source) | {"files": files}, ensure_ascii=False, sort_keys=True)


def parse_source(text: str) -> Source:
    """Return the source of a text that `write_source` wrote."""
    document = json.loads(text)
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in document.items()
        if name != "files"
    }
    return Source(files=tuple(File(**file) for file in document["files"]), **values)
