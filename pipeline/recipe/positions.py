"""TOML text -> the line of every table, key and item of a list.

tomllib says what a document holds and not where, and an error without a line has to be searched
for. The text has passed tomllib before it comes here, so that this reader follows its structure and
checks nothing.
"""

import re
import tomllib
from collections.abc import Mapping

# What leads to a value: tables and keys, and the numbers, from 0, of items and of [[tables]].
Place = tuple[str | int, ...]

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|\n"
    r"|[\[\]{}=,.]"
    r"|[^\s\"'\#\[\]{}=,.]+",
    re.DOTALL,
)
_ENDS_OF_VALUE = (",", "\n", "]", "}")


def find_lines(text: str) -> Mapping[Place, int]:
    """Return the 1-based line of each table, key and item of a document that tomllib accepts."""
    return _Reader(text).read()


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, int]] = []
        line, end = 1, 0
        for match in _TOKEN.finditer(text):
            line += text.count("\n", end, match.start())
            end = match.start()
            if not match[0].startswith("#"):
                self._tokens.append((match[0], line))
        self._next = 0
        self._lines: dict[Place, int] = {}
        # How many [[tables]] of each place there have been.
        self._counts: dict[Place, int] = {}

    def read(self) -> Mapping[Place, int]:
        table: Place = ()
        while self._next < len(self._tokens):
            if self._skip("\n"):
                continue
            if self._skip("["):
                table = self._read_heading()
            else:
                self._read_pair(table)
        return self._lines

    def _peek(self) -> str:
        return self._tokens[self._next][0] if self._next < len(self._tokens) else "\n"

    def _take(self) -> tuple[str, int]:
        self._next += 1
        return self._tokens[self._next - 1]

    def _skip(self, wanted: str) -> bool:
        """Whether the next token is the one that is wanted; it is then taken."""
        if self._peek() != wanted:
            return False
        self._next += 1
        return True

    def _read_heading(self) -> Place:
        """Return the place of [a.b] or of one more [[a.b]]."""
        is_one_of_many = self._skip("[")
        *outer, last = self._read_key()
        place: Place = ()
        for part, line in outer:
            place = self._enter((*place, part), line)
        name, line = last
        place = (*place, name)
        self._skip("]")
        self._skip("]")
        if is_one_of_many:
            self._lines.setdefault(place, line)
            number = self._counts[place] = self._counts.get(place, 0) + 1
            place = (*place, number - 1)
        return self._enter(place, line)

    def _enter(self, place: Place, line: int) -> Place:
        """Return the place, of several [[tables]] that of the last."""
        self._lines.setdefault(place, line)
        return (*place, self._counts[place] - 1) if place in self._counts else place

    def _read_key(self) -> list[tuple[str, int]]:
        """Return the parts of a dotted key, each with its line."""
        parts = [self._read_part()]
        while self._skip("."):
            parts.append(self._read_part())
        return parts

    def _read_part(self) -> tuple[str, int]:
        token, line = self._take()
        return (tomllib.loads(f"k = {token}")["k"] if token[0] in "\"'" else token), line

    def _read_pair(self, table: Place) -> None:
        place = table
        for part, line in self._read_key():
            place = (*place, part)
            self._lines.setdefault(place, line)
        self._skip("=")
        self._read_value(place)

    def _read_value(self, place: Place) -> None:
        if self._skip("["):
            self._read_list(place)
        elif self._skip("{"):
            while not self._skip("}"):
                if not self._skip(",") and not self._skip("\n"):
                    self._read_pair(place)
        else:
            while self._peek() not in _ENDS_OF_VALUE:
                self._take()

    def _read_list(self, place: Place) -> None:
        number = 0
        while not self._skip("]"):
            if not self._skip(",") and not self._skip("\n"):
                self._lines[(*place, number)] = self._tokens[self._next][1]
                self._read_value((*place, number))
                number += 1
