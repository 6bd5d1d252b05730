"""recipes/reference.toml and docs/recipe.md from the fields.

`python -m pipeline.recipe.reference FILE...` writes those, each by its ending; without a file the
TOML goes to stdout.
"""

import dataclasses
import json
import sys
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipeline.recipe.dataset import DEMO
from pipeline.recipe.parsing import find_row_type
from pipeline.recipe.recipe import TABLES
from pipeline.recipe.setting import describe_range

_KINDS = {str: "text", int: "whole number", float: "number", bool: "true or false"}

_ABOUT = {
    "base": "The model to start from.",
    "demo": 'What the demonstration makes where a source is "demo".',
    "dataset": "Where the rows come from, how they are read, cleaned, split and written as tokens.",
    "train": "How the adapter is trained.",
    "gguf": "The quantized files.",
    "serve": "The server on one of them.",
    "evaluate": "The questions that the results are judged by.",
    "export": "What the model is called where others find it. No key depends on it.",
    "limits": "What a container may use. No key depends on it.",
}

_INTRODUCTION = """\
# The recipe

<!-- Written by `make reference` from pipeline/recipe; do not edit. -->

A recipe is one TOML file: it says what is built, and nothing outside of it may change what an
artifact is. Paths are relative to the recipe's folder. Every field that may change an artifact's
bytes is part of its key; change it, and that artifact is built anew, with what is made from it.

`python -m pipeline plan --recipe FILE` checks a recipe and says what it would build, without a GPU,
weights or packages. A recipe is checked whole: every error comes at once, each as one line
`file:line: [table] key = value: what is wrong, what is allowed`, with what was probably meant.

[recipes/reference.toml](../recipes/reference.toml) holds the same fields with their defaults, ready
to copy from.
"""

_REFUSED = """\
## What cannot go together

Besides a value out of its range, a recipe is refused for what its fields allow one by one and the
whole does not. What is said of the base is read from its `config.json` and chat template.

- A base whose weights are quantized in a form that cannot be turned into 16 bits: anything but FP8
  with scales per tensor, channel or block, and FP8 of a family that is not in the table. FP8 is
  always dequantized first: `qlora` loads 16-bit weights in 4 bits, and bitsandbytes refuses a
  checkpoint that is quantized already.
- `[dataset] sequence_length`, `[serve] context` or `[evaluate] max_tokens` above the model's
  positions.
- A type with blocks of 256 (the K-quants and most i-quants) where rows of the base are no whole
  number of them: llama-quantize would silently give those tensors another type. It is taken when
  `[gguf] tensor_types` asks for that type by name.
- A chat template that writes no user's turn.
- A type or tensor type that is garbage without an importance matrix, and no `[gguf] calibration`.
- `[serve] type` that is not among `[gguf] types`; `[evaluate] problems` above `[dataset] held_out`;
  `[evaluate] divergence_tokens` without the BF16 file that the others are compared with.
- In `[train]`: what only an adapter has with `method = "full"`; `init = "pissa"` without 16-bit
  weights, or `"loftq"` without 4-bit ones; `embedding_learning_rate` without embeddings that are
  trained; what only a GPU has with `accelerator = "cpu"`; a `checkpoint` after the last step or
  epoch; a run without a step, or with a learning rate or an alpha of 0.
- `gradient_accumulation` that is no multiple of `processes`, or `processes` of `hosts`; several
  hosts without `address`; weights in parts (`sharding`, `deepspeed`) for one process, for a CPU or
  with `qlora`; a DeepSpeed configuration that is not there, is no JSON, or is of ZeRO stage 3.
- Column templates without their partner, of a format that has none, or that name no column.
- A source that is not there, or holds no file of rows. `plan` goes on without: it gives sizes then,
  and no keys.
"""


def make_reference() -> str:
    """Return recipes/reference.toml: every field with its meaning, type, range and default."""
    lines = [
        "# Every field of a recipe: what it means, its type and range, its default.",
        "# Written by `make reference`; do not edit.",
    ]
    for name, table_type in TABLES.items():
        lines += ["", f"# {_ABOUT[name]}", f"[{name}]"]
        for field, kind in _list_fields(table_type):
            lines += [f"# {field.metadata['doc']}", f"# {kind}", _show_default(field)]
        for heading, row_type in _list_row_tables(name, table_type):
            lines += ["", f"# {heading}"]
            for field, kind in _list_fields(row_type):
                shown = _show_default(field, "...")
                lines += [f"# # {field.metadata['doc']}", f"# # {kind}", f"# {shown}"]
    return "\n".join(lines) + "\n"


def make_document() -> str:
    """Return docs/recipe.md: a table of fields per table of the recipe."""
    parts = [_INTRODUCTION]
    for name, table_type in TABLES.items():
        parts.append(f"## [{name}]\n\n{_ABOUT[name]}\n\n{_make_table(table_type)}")
        for heading, row_type in _list_row_tables(name, table_type):
            parts.append(f"### {heading}\n\n{_make_table(row_type)}")
    return "\n".join([*parts, _REFUSED])


def _make_table(table_type: Any) -> str:
    rows = [
        f"| `{field.name}` | {_escape(kind)} | {_show_cell(field)} |"
        f" {_escape(field.metadata['doc'])} |\n"
        for field, kind in _list_fields(table_type)
    ]
    return "| field | type and range | default | meaning |\n|---|---|---|---|\n" + "".join(rows)


def _list_fields(table_type: Any) -> Iterator[tuple[dataclasses.Field[Any], str]]:
    """Yield each field with its type and range in words."""
    hints = typing.get_type_hints(table_type)
    for field in dataclasses.fields(table_type):
        yield field, _describe_kind(field, hints[field.name])


def _describe_kind(field: dataclasses.Field[Any], hint: Any) -> str:
    limits = field.metadata
    kind = _KINDS.get(hint, "list of texts")
    if find_row_type(hint):
        kind = "list of tables"
    elif kind == "list of texts" and not limits["may_be_empty"]:
        kind += ", at least one"
    if limits["choices"]:
        kind += f", {'of' if kind.startswith('list') else 'one of'}: {', '.join(limits['choices'])}"
    if words := describe_range(limits["low"], limits["high"]):
        kind += f", {words}"
    return kind + ("; required" if field.default is dataclasses.MISSING else "")


def _list_row_tables(name: str, table_type: Any) -> Iterator[tuple[str, Any]]:
    """Yield heading and type of the tables inside a table whose fields are not the table's own."""
    for field, hint in typing.get_type_hints(table_type).items():
        row_type = find_row_type(hint)
        if row_type is not None and not issubclass(table_type, row_type):
            yield f"[[{name}.{field}]]", row_type


def _show_default(field: dataclasses.Field[Any], required: str = DEMO) -> str:
    value = required if field.default is dataclasses.MISSING else field.default
    return f"{field.name} = {_show_value(value)}"


def _show_value(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_show_value(item) for item in value)}]"
    # TOML writes texts, and true and false, as JSON does.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)


def _show_cell(field: dataclasses.Field[Any]) -> str:
    if field.default is dataclasses.MISSING:
        return "none"
    return f"`{_escape(_show_value(field.default))}`"


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


_MAKERS = {".toml": make_reference, ".md": make_document}


def main(paths: Sequence[str]) -> None:
    """Write each file, or the TOML to stdout."""
    for path in map(Path, paths):
        path.parent.mkdir(exist_ok=True)
        path.write_text(_MAKERS[path.suffix](), encoding="utf-8")
    if not paths:
        sys.stdout.write(make_reference())


if __name__ == "__main__":
    main(sys.argv[1:])
