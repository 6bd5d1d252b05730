"""A TOML table -> a frozen dataclass of settings, every mistake collected with its place.

A table is made even where some of it is wrong, with the default in the wrong value's stead, so that
what contradicts what can be looked for in the same pass.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.recipe.positions import Place
from pipeline.recipe.setting import describe_range

# Stands for what is missing; whatever depends on it is not looked at.
_ABSENT = {str: "", int: 0, float: 0.0, bool: False}
_KINDS: Mapping[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a table",
}
_SHOWN = 80


# Marks a problem that no value shows: an unknown key, a missing one.
_NO_VALUE = object()


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is wrong with the value at a place; `of` are further fields that make it so."""

    at: Place
    what: str
    value: Any = _NO_VALUE
    of: tuple[Place, ...] = ()

    @property
    def fields(self) -> set[Place]:
        """Every field that has a part in it."""
        return {_drop_items(place) for place in (self.at, *self.of)}

    def tell(self, path: str, lines: Mapping[Place, int]) -> str:
        """Return one line: `file:line: [table] key = value: what`.

        Where the field is not written, the line is that of another that has a part in it, else that
        of its table, else none.
        """
        line = self.find_line(lines)
        where = path if line is None else f"{path}:{line}"
        shown = ""
        if self.value is not _NO_VALUE:
            default = "" if self.at in lines else " (the default)"
            shown = f" = {show_value(self.value)}{default}: "
        return f"{where}: {name_place(self.at)}{shown}{self.what}"

    def find_line(self, lines: Mapping[Place, int]) -> int | None:
        """Return the line that tells of it; None where not even its table is written."""
        line = next((lines[place] for place in (self.at, *self.of) if place in lines), None)
        place = self.at
        while line is None and place:
            line, place = lines.get(place), place[:-1]
        return line


def sort_problems(problems: Iterable[Problem], lines: Mapping[Place, int]) -> list[Problem]:
    """Return the problems in the order of their lines."""
    return sorted(problems, key=lambda problem: problem.find_line(lines) or 0)


def parse_table(
    table_type: Any,
    raw: Any,
    place: Place,
    problems: list[Problem],
    homes: Mapping[str, Sequence[str]],
) -> Any:
    """Return the table's value, after adding what is wrong with it to `problems`.

    `homes` names the tables that have a key, for one that stands in the wrong table.
    """
    if not isinstance(raw, dict):
        problems.append(Problem(at=place, value=raw, what="must be a table"))
        raw = {}
    fields = {field.name: field for field in dataclasses.fields(table_type)}
    hints = typing.get_type_hints(table_type)
    values: dict[str, Any] = {}
    for key, value in raw.items():
        at = (*place, key)
        if key not in fields:
            problems.append(Problem(at=at, what=f": unknown key{_suggest(key, fields, homes)}"))
        elif row_type := find_row_type(hints[key]):
            values[key] = _parse_tables(row_type, value, at, problems, homes)
        else:
            what, values[key], number = _parse_value(value, hints[key], fields[key].metadata)
            if what:
                at = at if number is None else (*at, number)
                problems.append(Problem(at=at, value=value, what=what))
                del values[key]
    for key, field in fields.items():
        if field.default is dataclasses.MISSING and key not in values:
            values[key] = _ABSENT.get(hints[key], ())
            if key not in raw:
                what = f" is missing: {field.metadata['doc']}"
                problems.append(Problem(at=(*place, key), what=what))
    return table_type(**values)


def find_row_type(hint: Any) -> Any:
    """Return the type of a field's tables where it is a list of tables; else None."""
    item = (*typing.get_args(hint), None)[0]
    return item if dataclasses.is_dataclass(item) else None


def _parse_tables(
    table_type: Any,
    raw: Any,
    place: Place,
    problems: list[Problem],
    homes: Mapping[str, Sequence[str]],
) -> tuple[Any, ...]:
    if not isinstance(raw, list):
        heading = f"[[{'.'.join(map(str, place))}]]"
        problems.append(Problem(at=place, value=raw, what=f"must be tables, each headed {heading}"))
        return ()
    return tuple(
        parse_table(table_type, each, (*place, number), problems, homes)
        for number, each in enumerate(raw)
    )


def _parse_value(
    value: Any, hint: Any, limits: types.MappingProxyType[Any, Any]
) -> tuple[str, Any, int | None]:
    """Return what is wrong with the value ("" when nothing is), the value in its own type, and the
    number of the wrong item when it is one of a list's."""
    if hint is float and type(value) is int:
        value = float(value)
    if typing.get_origin(hint) is tuple:
        return _parse_list(value, limits)
    if type(value) is not hint:
        found = _KINDS.get(type(value), f"a {type(value).__name__}")
        return f"must be {_KINDS[hint]}, not {found}", value, None
    choices = limits["choices"]
    if choices and value not in choices:
        return f"must be one of {', '.join(choices)}{_find_similar(value, choices)}", value, None
    low, high = limits["low"], limits["high"]
    is_low = low is not None and not value >= low
    is_high = high is not None and not value <= high
    if is_low or is_high or (hint is float and not math.isfinite(value)):
        return f"must be {describe_range(low, high) or 'a finite number'}", value, None
    return "", value, None


def _parse_list(
    value: Any, limits: types.MappingProxyType[Any, Any]
) -> tuple[str, Any, int | None]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return "must be a list of texts", value, None
    if not value and not limits["may_be_empty"]:
        return "must be non-empty", value, None
    for number, item in enumerate(value):
        if item in value[:number]:
            return f"must be without repeats; {item} stands twice", value, number
        if limits["choices"] and item not in limits["choices"]:
            return f"unknown {item}{did_you_mean(item, limits['choices'])}", value, number
    return "", tuple(value), None


def _suggest(key: str, known: Iterable[str], homes: Mapping[str, Sequence[str]]) -> str:
    if key in homes:
        return f"; it belongs in {' or '.join(f'[{table}]' for table in homes[key])}"
    return did_you_mean(key, known)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return what may be meant, or all that is known."""
    return _find_similar(name, known) or f" (known: {', '.join(known)})"


def _find_similar(name: str, known: Iterable[str]) -> str:
    """Return a suggestion, whatever the case of the letters; "" when nothing is close."""
    import difflib  # only a mistake needs it

    by_letters = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), by_letters, n=1)
    return f"; did you mean {by_letters[close[0]]}?" if close else ""


def show_value(value: Any) -> str:
    """Return the value as it is written in TOML, shortened where it is long."""
    if isinstance(value, str | bool | int | list | tuple | dict):
        try:
            text = json.dumps(value, ensure_ascii=False)
        except (TypeError, ValueError):
            text = str(value)
    else:
        text = str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def name_place(place: Place) -> str:
    """Return `[table] key`, or `[[table.tables]] key`, of a place."""
    place = _drop_items(place)
    names = [part for part in place if isinstance(part, str)]
    table = ".".join(names[:-1] or names)
    heading = f"[{table}]" if len(names) == len(place) else f"[[{table}]]"
    return heading if len(names) == 1 else f"{heading} {names[-1]}"


def _drop_items(place: Place) -> Place:
    """Return the place of the field, without the number of an item of its list."""
    return place[:-1] if isinstance(place[-1], int) else place
