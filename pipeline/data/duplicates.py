"""Which rows repeat others, and which belong together: exact digests, MinHash, groups.

The index lies in a file (SQLite), so memory stays flat however many rows there are; a group is
eight bytes a row. Near duplicates are found by datasketch's MinHash over shingles of five words:
sixteen bands of eight hashes name the candidates, all 128 hashes then estimate the similarity, so
what is under the threshold is never taken for a duplicate.
"""

import hashlib
import re
import sqlite3
from array import array
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

from pipeline.data.row import Row, write_row

SHINGLE_WORDS = 5
_BANDS = 16
_BAND_HASHES = 8
_HASHES = _BANDS * _BAND_HASHES
# The permutations are drawn by numpy's RandomState, whose streams are frozen.
_SEED = 1
# A band that thousands share is boilerplate; the first rows of it stand for all.
_CANDIDATES = 64

# Scripts without blanks between words: each character counts as a word.
_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0e00-\u0e7f]|[^\W_]+")


def list_words(text: str) -> list[str]:
    """Return the text's words without case, marks and blanks."""
    return _WORDS.findall(text.casefold())


def make_digest(text: str) -> bytes:
    """Return 16 bytes that stand for the text."""
    return hashlib.sha256(text.encode("utf-8")).digest()[:16]


def digest_row(row: Row) -> bytes:
    """Return what two rows share that say exactly the same, wherever they come from."""
    return make_digest(write_row(replace(row, id="", source="", domain="")))


def read_prompt(row: Row) -> str:
    """Return what a row's group is known by: its first question, or its text.

    The first, since conversations that begin alike are branches of one.
    """
    users = (message.content for message in row.messages if message.role == "user")
    return next(users, row.text or "")


def digest_prompt(row: Row) -> bytes:
    """Return what rows of one question share, whatever its case, marks and blanks."""
    prompt = read_prompt(row)
    # Of "?" and "!" nothing is left, and they are not the same.
    return make_digest(" ".join(list_words(prompt)) or prompt)


def read_whole(row: Row) -> str:
    """Return all that a row says, in order."""
    turns = (f"{each.thinking or ''} {each.content}" for each in row.messages)
    return " ".join(turns) if row.messages else row.text or ""


class Groups:
    """Disjoint sets of row numbers; the smallest number of a set names it."""

    def __init__(self) -> None:
        self._parents = array("q")

    def add(self) -> int:
        """Return the number of a new row, a group of its own."""
        self._parents.append(len(self._parents))
        return len(self._parents) - 1

    def find(self, number: int) -> int:
        """Return the first row of the row's group."""
        parents = self._parents
        while parents[number] != number:
            parents[number] = parents[parents[number]]
            number = parents[number]
        return number

    def join(self, one: int, other: int) -> None:
        """Make one group of two."""
        first, second = sorted((self.find(one), self.find(other)))
        self._parents[second] = first


class DigestIndex:
    """Digests -> the number of the first row that had each."""

    def __init__(self, database: sqlite3.Connection, name: str) -> None:
        self._database, self._name = database, name
        database.execute(
            f"CREATE TABLE {name} (digest BLOB PRIMARY KEY, number INTEGER) WITHOUT ROWID"
        )

    def find(self, digest: bytes) -> int | None:
        """Return the first row with the digest."""
        query = f"SELECT number FROM {self._name} WHERE digest = ?"
        found = self._database.execute(query, (digest,)).fetchone()
        return None if found is None else int(found[0])

    def add(self, digest: bytes, number: int) -> None:
        """Remember the row as the digest's first."""
        self._database.execute(f"INSERT INTO {self._name} VALUES (?, ?)", (digest, number))


class NearIndex:
    """Texts -> the numbers of earlier rows whose texts are nearly the same."""

    def __init__(self, database: sqlite3.Connection, name: str, threshold: float) -> None:
        self._database, self._name, self._threshold = database, name, threshold
        database.execute(f"CREATE TABLE {name} (number INTEGER PRIMARY KEY, hashes BLOB)")
        database.execute(
            f"CREATE TABLE {name}_bands (band BLOB, number INTEGER, "
            "PRIMARY KEY (band, number)) WITHOUT ROWID"
        )

    def sign(self, text: str) -> Any:
        """Return the text's MinHash."""
        words = list_words(text) or [text]
        last = max(1, len(words) - SHINGLE_WORDS + 1)
        shingles = {" ".join(words[start : start + SHINGLE_WORDS]) for start in range(last)}
        minhash = _make_minhash().copy()
        # Sorted: nothing may depend on the order of a set.
        minhash.update_batch([shingle.encode("utf-8") for shingle in sorted(shingles)])
        return minhash.hashvalues

    def find(self, hashes: Any) -> Iterator[int]:
        """Yield earlier rows whose estimated Jaccard similarity reaches the threshold."""
        import numpy as np

        bands = _make_bands(hashes)
        marks = ", ".join("?" * len(bands))
        query = (
            f"SELECT DISTINCT b.number, n.hashes FROM {self._name}_bands b "
            f"JOIN {self._name} n ON n.number = b.number WHERE b.band IN ({marks}) "
            f"ORDER BY b.number LIMIT {_CANDIDATES}"
        )
        for number, other in self._database.execute(query, bands).fetchall():
            same = np.count_nonzero(np.frombuffer(other, dtype=hashes.dtype) == hashes)
            if same >= self._threshold * _HASHES:
                yield int(number)

    def add(self, hashes: Any, number: int) -> None:
        """Remember the row."""
        insert = f"INSERT INTO {self._name} VALUES (?, ?)"
        self._database.execute(insert, (number, hashes.tobytes()))
        self._database.executemany(
            f"INSERT OR IGNORE INTO {self._name}_bands VALUES (?, ?)",
            [(band, number) for band in _make_bands(hashes)],
        )


def _make_bands(hashes: Any) -> list[bytes]:
    bands = hashes.reshape(_BANDS, _BAND_HASHES)
    return [
        bytes([number]) + hashlib.sha256(band.tobytes()).digest()[:8]
        for number, band in enumerate(bands)
    ]


@lru_cache(maxsize=1)
def _make_minhash() -> Any:
    """Return an empty MinHash, whose copies share its permutations.

    Imported here: datasketch is slow to import, and needed only where the recipe asks.
    """
    from datasketch import MinHash

    return MinHash(num_perm=_HASHES, seed=_SEED)
