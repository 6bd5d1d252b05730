"""Which rows are held out, which are trained on, and in what order; by keyed hashes alone.

A group goes to one side as a whole. The groups held out are those whose hashes are smallest, so the
choice does not depend on the order of the file, and more rows change little of it. Nothing is drawn
one after the other, so nothing need be held in memory to be shuffled.
"""

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pipeline.data.duplicates import list_words, make_digest
from pipeline.data.row import Row
from pipeline.errors import StageError

_THINK_END = "</think>"


class Candidate(NamedTuple):
    """The first row of a group. Those that can be asked come first, then the smallest hash."""

    is_unasked: bool
    order: bytes
    number: int


def make_order(seed: int, purpose: str, name: bytes) -> bytes:
    """Return 16 bytes that order rows as if at random, for one seed and purpose."""
    return hashlib.sha256(f"{seed} {purpose} ".encode() + name).digest()[:16]


def choose_held_out(candidates: Iterable[Candidate], count: int, groups: int) -> list[Candidate]:
    """Return `count` of the groups' first rows, in the order of the hashes."""
    if groups <= count:
        raise StageError(
            "too few different problems",
            on=f"{groups} problems, {count} to be held out",
            why="nothing would be left to train on",
            then="lower dataset.held_out in the recipe, or bring more rows",
        )
    return heapq.nsmallest(count, candidates)


def read_exam(row: Row) -> tuple[str, str] | None:
    """Return problem and solution for the evaluation; None when the row cannot be asked alone.

    That is a row with more than one question, with tools, or whose answer is nothing but thinking.
    """
    users = [message for message in row.messages if message.role == "user"]
    if len(users) != 1 or row.tools or any(message.tool_calls for message in row.messages):
        return None
    answer = row.messages[-1].content
    # A think block that stays part of the text is no part of the solution.
    solution = answer.rpartition(_THINK_END)[2].strip() if _THINK_END in answer else answer
    return (users[0].content, solution) if solution else None


def count_copies(seed: int, row_id: str, weight: float) -> int:
    """Return how often a row is trained on: 1.5 is once, and for half of the rows once more."""
    whole, part = divmod(weight, 1.0)
    drawn = int.from_bytes(make_order(seed, "weight", row_id.encode())[:4], "big") / (1 << 32)
    return int(whole) + (drawn < part)


class HeldOutTexts:
    """What the held-out questions say, to find the rows that give it away."""

    def __init__(self, rows: Sequence[Row], words: int) -> None:
        self._words = words
        seen: Counter[tuple[str, ...]] = Counter()
        self._wholes: set[bytes] = set()
        for text in (each.content for row in rows for each in row.messages if each.role == "user"):
            said = list_words(text)
            seen.update(set(self._list_runs(said)))
            if said:
                self._wholes.add(make_digest(" ".join(said)))
        # What two held-out questions share is the wording of the task, not a question.
        self._runs = {run for run, times in seen.items() if times == 1} if len(rows) > 1 else set()

    def _list_runs(self, words: Sequence[str]) -> Iterable[tuple[str, ...]]:
        return zip(*(words[start:] for start in range(self._words)), strict=False)

    def is_in(self, row: Row) -> bool:
        """Whether the row repeats a held-out question, or so many words of one in sequence."""
        for message in row.messages:
            words = list_words(message.content)
            if message.role == "user" and make_digest(" ".join(words)) in self._wholes:
                return True
            thought = list_words(message.thinking or "")
            if any(not self._runs.isdisjoint(self._list_runs(each)) for each in (words, thought)):
                return True
        return not self._runs.isdisjoint(self._list_runs(list_words(row.text or "")))
