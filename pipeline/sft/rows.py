"""A user's JSONL file -> train.jsonl and held_out.jsonl, split by problem.

In: `source`, a directory that holds the file. Out: one line per row,
`{"id", "problem", "thinking", "solution"}`. What stays true: no held-out problem occurs in
train.jsonl, whatever the file repeats (further traces of a held-out problem are left out and
counted); the split depends on the file's bytes, `held_out` and `seed` alone.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import StageError
from pipeline.log import say

THINK_MARKS = ("<think>", "</think>")


@dataclass(frozen=True, kw_only=True)
class Options:
    file: str
    sha256: str
    columns: tuple[str, ...]
    held_out: int
    seed: int


class Row(NamedTuple):
    id: str
    problem: str
    thinking: str
    solution: str


def _bad_row(what: str, *, on: str, why: str) -> StageError:
    return StageError(what, on=on, why=why, then="correct that line and build again")


def _read_bytes(path: Path, sha256: str) -> bytes:
    if not path.is_file():
        raise StageError(
            "the dataset's file is missing",
            on=path.name,
            why="the recipe names a file that its directory does not hold",
            then="correct dataset.source in the recipe",
        )
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise StageError(
            "the dataset's file is not the one that was planned",
            on=path.name,
            why=f"its sha256 is {digest}, planned was {sha256}: it changed meanwhile",
            then="build again",
        )
    return content


def _parse_line(line: bytes, on: str) -> dict[str, object]:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise _bad_row("a row is not UTF-8", on=on, why=str(error)) from None
    except json.JSONDecodeError as error:
        raise _bad_row("a row is not JSON", on=on, why=str(error)) from None
    if not isinstance(value, dict):
        raise _bad_row("a row is not a JSON object", on=on, why=f"it is a {type(value).__name__}")
    return value


def _read_column(row: Mapping[str, object], column: str, on: str) -> str:
    value = row.get(column)
    if isinstance(value, str) and value.strip():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair: "\\ud800"
            raise _bad_row(f"column {column!r} is not text", on=on, why=str(error)) from None
        return value
    why = "it is empty" if isinstance(value, str) else f"it is a {type(value).__name__}, not a text"
    if column not in row:
        why = f"the row's columns are: {', '.join(sorted(row)) or 'none'}"
    raise _bad_row(f"a row has no {column!r}", on=on, why=why)


def _parse_rows(content: bytes, name: str, columns: Sequence[str]) -> Iterator[Row]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        on = f"{name}:{number}"
        value = _parse_line(line, on)
        problem, thinking, solution = (_read_column(value, column, on) for column in columns)
        for column, text in zip(columns[1:], (thinking, solution), strict=True):
            for mark in THINK_MARKS:
                if mark in text:
                    raise _bad_row(
                        f"column {column!r} contains {mark}",
                        on=on,
                        why="the think block is written around the thinking by this project",
                    )
        yield Row(id=f"{number:08d}", problem=problem, thinking=thinking, solution=solution)


def choose_held_out(problems: Sequence[str], count: int, seed: int) -> frozenset[str]:
    """Return `count` of the problems, each counted once, chosen by the seed."""
    unique = list(dict.fromkeys(problems))
    if len(unique) <= count:
        raise StageError(
            "too few different problems",
            on=f"{len(unique)} problems, {count} to be held out",
            why="nothing would be left to train on",
            then="lower dataset.held_out in the recipe, or bring more rows",
        )
    return frozenset(random.Random(seed).sample(unique, count))


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write one JSON object per line; UTF-8, keys in the order of `Row`."""
    lines = (json.dumps(row._asdict(), ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes("".join(lines).encode("utf-8"))


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Write train.jsonl and held_out.jsonl from the user's file.

    Raises StageError naming file:line and column for the first row that cannot be used.
    """
    content = _read_bytes(inputs["source"] / options.file, options.sha256)
    rows = list(_parse_rows(content, options.file, options.columns))
    problems = [row.problem for row in rows]
    held_out = choose_held_out(problems, options.held_out, options.seed)
    train = [row for row in rows if row.problem not in held_out]
    # One row per held-out problem: a problem that the file repeats must not be asked twice.
    first = {row.problem: row for row in reversed(rows) if row.problem in held_out}
    judged = [row for row in rows if first.get(row.problem) is row]
    write_rows(out / "train.jsonl", train)
    write_rows(out / "held_out.jsonl", judged)
    repeated = len(rows) - len(train) - len(judged)
    say(f"  {len(rows)} rows: {len(train)} to train on, {len(judged)} held out")
    if repeated:
        say(f"  {repeated} rows left out: further traces of held-out problems")
