"""A JSON value against a JSON Schema (draft 2020-12), as much of it as this repository's use.

A keyword that is not known is an error of the schema's: what is not checked must not stand there.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_WORDS = {"$schema", "$defs", "$ref", "title", "description"}
_KNOWN = _WORDS | {
    *("type", "enum", "properties", "required", "additionalProperties"),
    *("items", "pattern", "minimum", "maximum"),
}


def find_faults(value: Any, schema: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the value, each fault with where it is."""
    return list(_find(value, schema, schema, "$"))


def _find(value: Any, schema: Mapping[str, Any], root: Mapping[str, Any], at: str) -> Iterator[str]:
    assert schema.keys() <= _KNOWN, f"{at}: unknown keywords {schema.keys() - _KNOWN}"
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        yield from _find(value, root["$defs"][name], root, at)
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is none of {schema['enum']}"
    if "type" in schema and not _is_of_type(value, schema["type"]):
        yield f"{at}: {value!r} is no {schema['type']}"
        return
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        yield f"{at}: {value!r} does not match"
    if isinstance(value, int | float) and not _is_in_range(value, schema):
        yield f"{at}: {value!r} is out of range"
    if isinstance(value, dict):
        yield from _find_in_object(value, schema, root, at)
    if isinstance(value, list) and "items" in schema:
        for number, each in enumerate(value):
            yield from _find(each, schema["items"], root, f"{at}[{number}]")


def _is_of_type(value: Any, names: str | list[str]) -> bool:
    wanted = [names] if isinstance(names, str) else names
    if isinstance(value, bool):
        return "boolean" in wanted
    return any(isinstance(value, _TYPES[name]) for name in wanted)


def _is_in_range(value: float, schema: Mapping[str, Any]) -> bool:
    return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))


def _find_in_object(
    value: dict[str, Any], schema: Mapping[str, Any], root: Mapping[str, Any], at: str
) -> Iterator[str]:
    known = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            yield f"{at}: {name} is missing"
    for name, each in value.items():
        rest = schema.get("additionalProperties", True)
        if name in known:
            yield from _find(each, known[name], root, f"{at}.{name}")
        elif isinstance(rest, dict):
            yield from _find(each, rest, root, f"{at}.{name}")
        elif rest is False:
            yield f"{at}: {name} is not in the schema"
