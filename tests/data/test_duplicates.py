"""Near duplicates, as datasketch's MinHash sees them, go to one side and are trained on once."""

import sqlite3
from pathlib import Path

import datasketch
import pytest

from pipeline.data.duplicates import (
    Groups,
    NearIndex,
    digest_prompt,
    digest_row,
    list_words,
)
from pipeline.data.row import Message, Row
from tests.data.row_files import Build, make_pair, make_words, read_question

pytestmark = pytest.mark.train


def find_near(texts: list[str], threshold: float = 0.8) -> list[list[int]]:
    """Return the earlier texts that each one is near to."""
    index = NearIndex(sqlite3.connect(":memory:"), "near", threshold)
    found = []
    for number, text in enumerate(texts):
        hashes = index.sign(text)
        found.append(list(index.find(hashes)))
        index.add(hashes, number)
    return found


def test_a_copy_with_a_few_other_words_is_found() -> None:
    words = make_words(200, 1)
    changed = [*words[:100], "other", *words[101:]]
    # One word changes five of 196 runs: the similarity is 191 / 201 = 0.95.
    assert find_near([" ".join(words), " ".join(changed), " ".join(make_words(200, 2))]) == [
        [],
        [0],
        [],
    ]


def test_case_marks_and_blanks_are_no_difference() -> None:
    assert find_near(["Why is the sky blue today?", "why  is the sky BLUE, today"]) == [[], [0]]


@pytest.mark.parametrize(("changed", "is_near"), [(2, True), (8, False)])
def test_the_threshold_is_kept(changed: int, is_near: bool) -> None:
    """Two words of 300 leave 0.93 of the runs, eight leave 0.76."""
    words = make_words(300, 3)
    other = list(words)
    for place in range(changed):
        other[20 + 30 * place] = f"new{place}"
    assert bool(find_near([" ".join(words), " ".join(other)], threshold=0.85)[1]) == is_near


def test_short_texts_are_near_only_when_they_are_the_same() -> None:
    assert find_near(["What is 12 + 7?", "What is 12 + 8?", "?", "!", "What is 12 + 7"]) == [
        [],
        [],
        [],
        [],
        [0],
    ]


def test_the_estimate_is_datasketchs_own() -> None:
    index = NearIndex(sqlite3.connect(":memory:"), "near", 0.8)
    one, other = " ".join(make_words(50, 1)), " ".join(make_words(50, 1)[:40])
    made = []
    for text in (one, other):
        words = list_words(text)
        expected = datasketch.MinHash(num_perm=128, seed=1)
        for start in range(len(words) - 4):
            expected.update(" ".join(words[start : start + 5]).encode())
        assert (index.sign(text) == expected.hashvalues).all()
        made.append(expected)
    assert made[0].jaccard(made[1]) == pytest.approx(36 / 46, abs=0.15)


def test_groups_are_named_by_their_first_row() -> None:
    groups = Groups()
    for _ in range(6):
        groups.add()
    groups.join(4, 2)
    groups.join(5, 4)
    groups.join(1, 3)
    assert [groups.find(number) for number in range(6)] == [0, 1, 2, 1, 2, 2]
    groups.join(5, 3)
    assert [groups.find(number) for number in range(6)] == [0, 1, 1, 1, 1, 1]


def test_digests_know_what_is_said_and_not_where() -> None:
    turns = (Message(role="user", content="Hi, you"), Message(role="assistant", content="a"))
    one, other = Row(id="1", messages=turns, source="a:1"), Row(id="2", messages=turns, domain="d")
    assert digest_row(one) == digest_row(other)
    third = Row(id="3", messages=(Message(role="user", content="hi you!"), *turns[1:]))
    assert digest_row(one) != digest_row(third)
    assert digest_prompt(one) == digest_prompt(third)


def test_near_duplicates_are_dropped_or_stay_on_one_side(tmp_path: Path) -> None:
    build = Build(tmp_path)
    found = []
    for number in range(12):
        words = make_words(100, number)
        near = [*words[:50], "other", *words[51:]]
        answer = " ".join(make_words(100, number + 100))
        found += [make_pair(" ".join(words), answer), make_pair(" ".join(near), answer)]
        # The same question nearly, with quite another answer: kept, on the same side.
        found.append(make_pair(" ".join(near), " ".join(make_words(300, number + 200))))
    build.add(found)
    train, held_out, counts = build.run(near_duplicates=0.8, contamination_words=0)
    assert counts["dropped"] == {"near duplicate": 12, "of a held-out group": 2}
    assert (len(train), len(held_out)) == (20, 2)
    starts = {read_question(row).split()[0] for row in train}
    assert starts.isdisjoint(read_question(row).split()[0] for row in held_out)
