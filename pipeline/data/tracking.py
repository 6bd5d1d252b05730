"""Text that remembers which of its characters came from where.

A `Tracked` is a string whose runs name an origin for every character: `TEMPLATE`, or a number that
the caller gave to a text. What cuts or joins strings keeps each character's origin; any other
operation on a text gives a string of origin `UNKNOWN`. So what is marked as the template's own is
the template's own, and what is marked as a text's is that text's.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

TEMPLATE = 0
UNKNOWN = -1  # of the template or of a text: an operation has lost it

Run = tuple[int, int]  # length, origin


class Tracked(str):
    """A string with its runs; their lengths add up to the string's."""

    runs: tuple[Run, ...]

    def __new__(cls, text: str, runs: Iterable[Run] | None = None) -> "Tracked":
        """Return the text with its runs, neighbours of one origin joined."""
        made = super().__new__(cls, text)
        made.runs = _merge(((len(text), UNKNOWN),) if runs is None else runs)
        return made

    def __str__(self) -> str:
        return self

    def __add__(self, other: str) -> "Tracked":
        if not isinstance(other, str):
            return NotImplemented
        return Tracked(str.__add__(self, other), (*self.runs, *read_runs(other)))

    def __radd__(self, other: str) -> "Tracked":
        if not isinstance(other, str):
            return NotImplemented
        return Tracked(str.__add__(other, self), (*read_runs(other), *self.runs))

    def __mul__(self, count: SupportsIndex) -> "Tracked":
        times = max(0, count.__index__())
        return Tracked(str.__mul__(self, times), self.runs * times)

    __rmul__ = __mul__

    def __mod__(self, values: Any) -> "Tracked":
        return _lose(str.__mod__(self, values), self, values)

    def __rmod__(self, form: str) -> "Tracked":
        return _lose(str.__mod__(form, self), self)

    def __getitem__(self, key: SupportsIndex | slice) -> "Tracked":
        text = str.__getitem__(self, key)
        start, stop, pace = _find_slice(key, len(self))
        if pace != 1:
            return _lose(text, self)
        return Tracked(text, _cut(self.runs, start, max(start, stop)))

    def __iter__(self) -> Iterator["Tracked"]:
        return (self[index] for index in range(len(self)))

    @property
    def first_origin(self) -> int:
        """The origin of the first character that is not the template's; TEMPLATE without one."""
        return next((origin for length, origin in self.runs if length and origin), TEMPLATE)

    def strip(self, characters: str | None = None, /) -> "Tracked":
        return self.lstrip(characters).rstrip(characters)

    def lstrip(self, characters: str | None = None, /) -> "Tracked":
        return self[len(self) - len(str.lstrip(self, characters)) :]

    def rstrip(self, characters: str | None = None, /) -> "Tracked":
        return self[: len(str.rstrip(self, characters))]

    def removeprefix(self, prefix: str, /) -> "Tracked":
        return self[len(self) - len(str.removeprefix(self, prefix)) :]

    def removesuffix(self, suffix: str, /) -> "Tracked":
        return self[: len(str.removesuffix(self, suffix))]

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._locate(str.split(self, sep, maxsplit))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return self._locate(str.rsplit(self, sep, maxsplit))

    def splitlines(self, keepends: bool = False) -> list[str]:
        return self._locate(str.splitlines(self, keepends))

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        at = self.find(sep)
        if at < 0:
            return self, self[:0], self[:0]
        return self[:at], self[at : at + len(sep)], self[at + len(sep) :]

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        at = self.rfind(sep)
        if at < 0:
            return self[:0], self[:0], self
        return self[:at], self[at : at + len(sep)], self[at + len(sep) :]

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> "Tracked":
        if not old:
            return _lose(str.replace(self, old, new, count), self, new)
        return join(new, self.split(old, count))

    def join(self, parts: Iterable[str], /) -> "Tracked":
        return join(self, parts)

    def _locate(self, parts: Sequence[str]) -> list[str]:
        """Return the parts, which lie in the string in this order, with their runs."""
        found, position = [], 0
        for part in parts:
            # An empty part has no character whose origin could be mistaken.
            position = self.find(part, position)
            found.append(self[position : position + len(part)])
            position += len(part)
        return list[str](found)


def track(value: Any, origin: int) -> Any:
    """Return the JSON value with every text in it, keys included, marked by its origin."""
    if isinstance(value, str):
        return Tracked(value, [(len(value), origin)])
    if isinstance(value, Mapping):
        return {track(key, origin): track(item, origin) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [track(item, origin) for item in value]
    return value


def read_runs(text: str) -> tuple[Run, ...]:
    """Return the text's runs; a plain string is the template's."""
    return text.runs if isinstance(text, Tracked) else ((len(text), TEMPLATE),)


def join(separator: str, parts: Iterable[str]) -> Tracked:
    """Return `separator.join(parts)` with every character's origin."""
    runs: list[Run] = []
    texts: list[str] = []
    between = read_runs(separator)
    for part in parts:
        if texts and separator:
            runs += between
        runs += read_runs(part)
        texts.append(part)
    return Tracked(str.join(separator, texts), runs)


def find_origin(value: Any) -> int:
    """Return the origin of the first text in the value; TEMPLATE when it holds none."""
    if isinstance(value, Tracked):
        return value.first_origin
    if type(value) is dict:  # no other mapping: Jinja's context, which holds everything, is one
        return find_origin([*value.keys(), *value.values()])
    if isinstance(value, list | tuple):
        return next(filter(None, map(find_origin, value)), TEMPLATE)
    return TEMPLATE


def mark_lost(result: Any, *sources: Any) -> Any:
    """Return what an operation made of the sources, its plain texts marked as of UNKNOWN origin.

    The same result when no source holds a text.
    """
    if isinstance(result, str):
        return result if isinstance(result, Tracked) else _lose(str(result), *sources)
    if type(result) in (list, tuple):
        return type(result)(mark_lost(item, *sources) for item in result)
    return result


def read_text(value: Any) -> str:
    """Return `str(value)`, of UNKNOWN origin if there is a text in the value."""
    return value if isinstance(value, str) else _lose(str(value), value)


def _lose(text: str, *sources: Any) -> Tracked:
    origin = TEMPLATE if find_origin(list(sources)) == TEMPLATE else UNKNOWN
    return Tracked(text, [(len(text), origin)])


def _merge(runs: Iterable[Run]) -> tuple[Run, ...]:
    merged: list[Run] = []
    for length, origin in runs:
        if merged and merged[-1][1] == origin:
            merged[-1] = (merged[-1][0] + length, origin)
        elif length:
            merged.append((length, origin))
    return tuple(merged)


def _find_slice(key: SupportsIndex | slice, length: int) -> tuple[int, int, int]:
    if isinstance(key, slice):
        return key.indices(length)
    index = key.__index__() % length
    return index, index + 1, 1


def _cut(runs: Sequence[Run], start: int, stop: int) -> list[Run]:
    found, position = [], 0
    for length, origin in runs:
        low, high = max(start, position), min(stop, position + length)
        if low < high:
            found.append((high - low, origin))
        position += length
    return found


# What a string can do besides, each giving text.
_OTHERS = (
    *("capitalize", "casefold", "center", "expandtabs", "format", "format_map", "ljust"),
    *("lower", "rjust", "swapcase", "title", "translate", "upper", "zfill"),
)


def _make_other(name: str) -> Any:
    plain = getattr(str, name)

    def other(self: Tracked, *arguments: Any, **named: Any) -> Any:
        return _lose(plain(self, *arguments, **named), self, *arguments, *named.values())

    other.__name__ = name
    return other


for _name in _OTHERS:
    setattr(Tracked, _name, _make_other(_name))
