"""A file of rows, whatever its form -> its records one at a time, each with its place.

Nothing holds more than a batch of a file: JSON is parsed element by element, Parquet by batches.
A byte that is no UTF-8 passes as a lone surrogate, so that the row which holds it can be dropped
and counted. What is no row at all is a StageError that names the file and the line.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from pipeline.errors import StageError

_CHUNK_CHARACTERS = 1 << 16
_BLANKS = re.compile(r"[ \t\r\n]*")
# No row is as large; a file that is no JSON would be read whole before it is said.
_LARGEST_ELEMENT_CHARACTERS = 1 << 26
_BATCH_ROWS = 256
# A plain text is cut into rows at the first blank line after so many characters, or, where none
# comes, at the first line's end after more.
_TEXT_ROW_CHARACTERS = 4000
_LONG_TEXT_ROW_CHARACTERS = 16000


class Record(NamedTuple):
    where: str
    columns: dict[str, Any]


def read_records(path: Path, reader: str, name: str) -> Iterator[Record]:
    """Yield the records of a file; `name` is what messages and rows call it."""
    yield from _READERS[reader](path, name)


def _bad_file(what: str, *, on: str, why: str) -> StageError:
    return StageError(what, on=on, why=why, then="correct the file and build again")


def load_json(text: str | bytes) -> Any:
    """Return the JSON value; ValueError also for NaN, and for nesting or numbers without end."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON value")


def _read_json_lines(path: Path, name: str) -> Iterator[Record]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            where = f"{name}:{number}"
            if not line.strip():
                continue
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape")
                value = load_json(text)
            except ValueError as error:
                raise _bad_file("a row is not JSON", on=where, why=str(error)) from None
            yield _make_record(value, where)


def _make_record(value: Any, where: str) -> Record:
    if not isinstance(value, dict):
        why = f"it is a {type(value).__name__}"
        raise _bad_file("a row is not a JSON object", on=where, why=why)
    return Record(where, value)


def _read_json(path: Path, name: str) -> Iterator[Record]:
    """The file is one array of objects, or objects one after the other over any lines."""
    with path.open("r", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        text = _Window(file)
        is_array = text.take("[")
        number = 0
        while not (text.take("]") if is_array else text.is_over()):
            if number and is_array and not text.take(","):
                why = "no comma stands between two elements, or the array is never closed"
                raise _bad_file("the file is not JSON", on=f"{name}, after {number} rows", why=why)
            number += 1
            where = f"{name}:{number}"
            yield _make_record(text.take_value(where), where)
        if not text.is_over():
            why = "something follows the end of the array"
            raise _bad_file("the file is not JSON", on=f"{name}, after {number} rows", why=why)


class _Window:
    """The part of a text file that is being parsed, from `_at` on."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._text = ""
        self._at = 0
        self._decoder = json.JSONDecoder(parse_constant=_refuse_constant)

    def _read(self, characters: int) -> bool:
        """Whether there was more; what is parsed is let go."""
        more = self._file.read(characters)
        self._text = self._text[self._at :] + more
        self._at = 0
        return bool(more)

    def _skip_blanks(self) -> None:
        while True:
            blanks = _BLANKS.match(self._text, self._at)
            self._at = blanks.end() if blanks else self._at
            if self._at < len(self._text) or not self._read(_CHUNK_CHARACTERS):
                return

    def is_over(self) -> bool:
        """Whether nothing but blanks is left."""
        self._skip_blanks()
        return self._at == len(self._text)

    def take(self, character: str) -> bool:
        """Whether the character comes next; it is then passed."""
        self._skip_blanks()
        found = self._text.startswith(character, self._at)
        self._at += found
        return found

    def take_value(self, where: str) -> Any:
        """Return the next value, reading as much of the file as it takes."""
        self._skip_blanks()
        while True:
            left = len(self._text) - self._at
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
                # A number at the very end may go on.
                if end < len(self._text):
                    self._at = end
                    return value
                if not self._read(_CHUNK_CHARACTERS):
                    self._at = len(self._text)
                    return value
            except (ValueError, RecursionError) as error:
                # It may only be cut off: the next try has twice as much.
                is_large = left > _LARGEST_ELEMENT_CHARACTERS
                if is_large or not self._read(max(_CHUNK_CHARACTERS, left)):
                    why = str(error) or "it is nested too deeply"
                    raise _bad_file("the file is not JSON", on=where, why=why) from None


def _read_csv(path: Path, name: str, delimiter: str = ",") -> Iterator[Record]:
    csv.field_size_limit(_LARGEST_ELEMENT_CHARACTERS)
    with path.open("r", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.DictReader(file, delimiter=delimiter, strict=True)
        try:
            header = rows.fieldnames or ()
            if len(set(header)) != len(header):
                why = "two columns have the same name"
                raise _bad_file("the table has no usable header", on=f"{name}:1", why=why)
            started = rows.line_num + 1
            for row in rows:
                yield _make_csv_record(row, f"{name}:{started}")
                started = rows.line_num + 1
        except csv.Error as error:
            on = f"{name}:{rows.reader.line_num}"
            raise _bad_file("the file is not CSV", on=on, why=str(error)) from None


def _make_csv_record(row: dict[Any, Any], where: str) -> Record:
    if None in row or None in row.values():
        why = "it has more or fewer fields than the header"
        raise _bad_file("a row does not fit the table", on=where, why=why)
    return Record(where, row)


def _read_tsv(path: Path, name: str) -> Iterator[Record]:
    yield from _read_csv(path, name, "\t")


def _read_parquet(path: Path, name: str) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for columns in batch.to_pylist():
                    number += 1
                    yield Record(f"{name}:{number}", columns)
    except UnicodeDecodeError as error:
        raise _bad_file("a Parquet file's text is not UTF-8", on=name, why=str(error)) from None
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise _bad_file("the file is not Parquet", on=name, why=str(error)) from None


def _read_text(path: Path, name: str) -> Iterator[Record]:
    """Whole paragraphs, joined up to about 4,000 characters, are one row of raw text."""
    started, parts, characters = 1, list[str](), 0
    with path.open("r", encoding="utf-8-sig", errors="surrogateescape") as file:
        number = 0
        while line := file.readline(_LARGEST_ELEMENT_CHARACTERS):
            number += 1
            if not parts:
                started = number
            if parts or line.strip():
                parts.append(line)
                characters += len(line)
            enough = _LONG_TEXT_ROW_CHARACTERS if line.strip() else _TEXT_ROW_CHARACTERS
            if characters >= enough:
                yield _make_text_record(parts, f"{name}:{started}")
                parts, characters = [], 0
    if parts:
        yield _make_text_record(parts, f"{name}:{started}")


def _make_text_record(parts: list[str], where: str) -> Record:
    return Record(where, {"text": "".join(parts).rstrip()})


_READERS: dict[str, Callable[[Path, str], Iterator[Record]]] = {
    "jsonl": _read_json_lines,
    "json": _read_json,
    "csv": _read_csv,
    "tsv": _read_tsv,
    "parquet": _read_parquet,
    "text": _read_text,
}
