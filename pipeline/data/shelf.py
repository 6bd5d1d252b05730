"""Where rows wait between reading and writing: a scratch file with the indexes that relate them.

The stage reads each source once. What a row repeats, which group it belongs to and where it comes
in the shuffled order is looked up here, so that memory stays flat however many rows there are.
"""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.data import cleaning
from pipeline.data.duplicates import (
    DigestIndex,
    Groups,
    NearIndex,
    digest_prompt,
    digest_row,
    read_prompt,
    read_whole,
)
from pipeline.data.row import Row, parse_row, write_row
from pipeline.data.split import Candidate, make_order, read_exam

_CACHE_KIB = 32 * 1024


class Shelf:
    """The rows that are kept, by number, and the places of those that are trained on."""

    def __init__(self, path: Path, near_duplicates: float) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        # A scratch file: a crash throws it away.
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
            self._database.execute(f"PRAGMA {pragma}")
        self._database.execute("BEGIN")
        self._database.execute(
            "CREATE TABLE rows (number INTEGER PRIMARY KEY, source INTEGER, name BLOB, "
            "is_unasked INTEGER, line TEXT)"
        )
        self._database.execute(
            "CREATE TABLE training (place BLOB, copy INTEGER, number INTEGER, "
            "PRIMARY KEY (place, copy, number)) WITHOUT ROWID"
        )
        self.groups = Groups()
        self._exact = DigestIndex(self._database, "exact")
        self._prompts = DigestIndex(self._database, "prompts")
        self._near = [
            NearIndex(self._database, name, near_duplicates)
            for name in ("near_rows", "near_prompts")
            if near_duplicates
        ]

    def add(self, row: Row, line: str, source: int) -> str:
        """Keep the row, written as `line`; or return why it is one too many."""
        digest = digest_row(row)
        if self._exact.find(digest) is not None:
            return cleaning.EXACT_DUPLICATE
        hashes = [index.sign(read_whole(row)) for index in self._near[:1]]
        if hashes and next(self._near[0].find(hashes[0]), None) is not None:
            return cleaning.NEAR_DUPLICATE
        number = self.groups.add()
        self._exact.add(digest, number)
        if hashes:
            self._near[0].add(hashes[0], number)
        prompt = digest_prompt(row)
        self._group(row, prompt, number)
        self._database.execute(
            "INSERT INTO rows VALUES (?, ?, ?, ?, ?)",
            (number, source, prompt, read_exam(row) is None, line),
        )
        return ""

    def _group(self, row: Row, prompt: bytes, number: int) -> None:
        """Join the row with those of the same question, or nearly the same."""
        first = self._prompts.find(prompt)
        if first is not None:
            self.groups.join(first, number)
            return
        self._prompts.add(prompt, number)
        # Of raw text the whole is the prompt, and its near duplicates are gone.
        if self._near and row.messages:
            hashes = self._near[1].sign(read_prompt(row))
            for other in self._near[1].find(hashes):
                self.groups.join(other, number)
            self._near[1].add(hashes, number)

    def place(self, number: int, copy: int, order: bytes) -> None:
        """Put a row, or a further copy of it, among those that are trained on."""
        insert = "INSERT INTO training VALUES (?, ?, ?)"
        self._database.execute(insert, (order, copy, number))

    def list_candidates(self, seed: int) -> Iterator[Candidate]:
        """Yield the first row of each group."""
        query = "SELECT number, name, is_unasked FROM rows ORDER BY number"
        for number, name, is_unasked in self._database.execute(query):
            if self.groups.find(number) == number:
                yield Candidate(bool(is_unasked), make_order(seed, "split", name), number)

    def read(self, number: int) -> Row:
        """Return one row."""
        query = "SELECT line FROM rows WHERE number = ?"
        return parse_row(self._database.execute(query, (number,)).fetchone()[0])

    def read_all(self) -> Iterator[tuple[int, int, Row]]:
        """Yield number, source and row, in the order of the sources."""
        query = "SELECT number, source, line FROM rows ORDER BY number"
        for number, source, line in self._database.execute(query):
            yield number, source, parse_row(line)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def read_training(self) -> Iterator[str]:
        """Yield the lines to train on, shuffled; a further copy has an id of its own."""
        query = (
            "SELECT rows.line, training.copy FROM training CROSS JOIN rows "
            "ON rows.number = training.number ORDER BY training.place, training.copy"
        )
        for line, copy in self._database.execute(query):
            yield _rename(line, copy) if copy else line


def _rename(line: str, copy: int) -> str:
    row = parse_row(line)
    return write_row(replace(row, id=f"{row.id}-{copy}"))
