"""A TOML table -> a frozen dataclass of settings, every mistake collected with its line."""

import dataclasses
import re
import types
import typing
from typing import Any


def parse_table(
    table_type: Any, raw: Any, label: str, text: str, problems: list[str]
) -> object | None:
    """Return the table's value, or None after adding what is wrong to `problems`."""
    if not isinstance(raw, dict):
        problems.append(f"{label} must be a table, not {raw!r}")
        return None
    fields = {field.name: field for field in dataclasses.fields(table_type)}
    hints = typing.get_type_hints(table_type)
    before = len(problems)
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in fields:
            problem = f": unknown key{did_you_mean(key, fields)}"
        elif row_type := _find_row_type(hints[key]):
            inner = f"[[{label[1:-1]}.{key}]]"
            problem, values[key] = "", _parse_tables(row_type, value, inner, text, problems)
        else:
            problem, values[key] = _parse_value(value, hints[key], fields[key].metadata)
            problem = problem and f" = {value!r}: {problem}"
        if problem:
            problems.append(f"line {find_line(text, label, key)}: {label} {key}{problem}")
    for key, field in fields.items():
        if field.default is dataclasses.MISSING and key not in raw:
            problems.append(f"{label} {key} is missing: {field.metadata['doc']}")
    return table_type(**values) if len(problems) == before else None


def _find_row_type(hint: Any) -> Any:
    """Return the type of a field's tables where it is a list of tables; else None."""
    item = (*typing.get_args(hint), None)[0]
    return item if dataclasses.is_dataclass(item) else None


def _parse_tables(
    table_type: Any, raw: Any, label: str, text: str, problems: list[str]
) -> tuple[object, ...]:
    if not isinstance(raw, list):
        problems.append(f"{label} must be tables, each headed {label}, not {raw!r}")
        return ()
    return tuple(parse_table(table_type, each, label, text, problems) for each in raw)


def _parse_value(
    value: Any, hint: Any, limits: types.MappingProxyType[Any, Any]
) -> tuple[str, Any]:
    """Return what is wrong with the value ("" when nothing is) and the value in its own type."""
    if hint is float and type(value) is int:
        value = float(value)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            return "must be a list of strings", value
        if not (value or limits["may_be_empty"]) or len(set(value)) != len(value):
            return "must be non-empty and without repeats", value
        wrong = [item for item in value if limits["choices"] and item not in limits["choices"]]
        return _explain_item(wrong[0], limits["choices"]) if wrong else "", tuple(value)
    if type(value) is not hint:
        return f"must be {hint.__name__}, not {type(value).__name__}", value
    if limits["choices"] and value not in limits["choices"]:
        return f"must be one of {', '.join(limits['choices'])}", value
    too_low = limits["low"] is not None and not value >= limits["low"]
    too_high = limits["high"] is not None and not value <= limits["high"]
    if too_low or too_high or value in (float("inf"),):
        return f"must be in {limits['low']} to {limits['high'] or 'any size'}", value
    return "", value


def _explain_item(item: str, choices: tuple[str, ...]) -> str:
    return f"unknown {item}{did_you_mean(item, choices)}"


def find_line(text: str, table: str, key: str) -> int:
    """Return the 1-based line where the key (or, without a table, the table) is written; else 1."""
    wanted = rf"\s*\[\s*{re.escape(key)}\s*[].]|\s*{re.escape(key)}\s*[=.]"
    inside = table == ""
    for number, line in enumerate(text.splitlines(), start=1):
        if table and line.strip().startswith("["):
            inside = line.strip().startswith(table)
        elif inside and re.match(wanted, line):
            return number
        if not table and re.match(wanted, line):
            return number
    return 1


def did_you_mean(name: str, known: typing.Iterable[str]) -> str:
    import difflib  # only a mistake needs it

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f" (known: {', '.join(known)})"
