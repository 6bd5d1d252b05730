"""How a field of a recipe is declared: its default, its range and one line of documentation."""

import dataclasses
from typing import Any


def setting(
    doc: str,
    default: Any = dataclasses.MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    may_be_empty: bool = False,
) -> Any:
    """Return a dataclass field that the recipe's parser and its reference understand."""
    metadata = {"doc": doc, "low": low, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata | {"may_be_empty": may_be_empty})


def describe_range(low: float | None, high: float | None) -> str:
    """Return the allowed numbers in words; "" where every number is allowed."""
    if low is None:
        return "" if high is None else f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"
