"""recipes/reference.toml from the fields: `python -m pipeline.recipe.reference` writes it."""

import dataclasses
import sys
from typing import Any

from pipeline.recipe.dataset import DEMO
from pipeline.recipe.recipe import TABLES


def make_reference() -> str:
    """Return recipes/reference.toml: every field with its default, range and meaning."""
    lines = [
        "# Every field of a recipe, with its default. Written by `make reference`; do not edit.",
    ]
    for name, table_type in TABLES.items():
        lines += ["", f"[{name}]"]
        for field in dataclasses.fields(table_type):
            lines += ["# " + _describe_field(field), _show_default(field)]
    return "\n".join(lines) + "\n"


def _describe_field(field: dataclasses.Field[Any]) -> str:
    limits = field.metadata
    text = str(limits["doc"])
    if limits["choices"]:
        text += f" One of: {', '.join(limits['choices'])}."
    if limits["low"] is not None:
        text += f" From {limits['low']}" + (f" to {limits['high']}." if limits["high"] else ".")
    return text + (" Required." if field.default is dataclasses.MISSING else "")


def _show_default(field: dataclasses.Field[Any]) -> str:
    value = DEMO if field.default is dataclasses.MISSING else field.default
    if isinstance(value, bool):
        return f"{field.name} = {str(value).lower()}"
    if isinstance(value, tuple):
        quoted = ", ".join(f'"{item}"' for item in value)
        return f"{field.name} = [{quoted}]"
    return f"{field.name} = " + (f'"{value}"' if isinstance(value, str) else repr(value))


if __name__ == "__main__":
    sys.stdout.write(make_reference())
