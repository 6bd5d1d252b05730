"""Rows of any source become clean canonical rows; all that is left out is counted with reasons."""

import hashlib
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.data import rows
from pipeline.data.source import File, Source, write_source
from pipeline.errors import StageError
from tests.data.row_files import OPTIONS, Build, make_pair, make_pairs, read_question


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(tmp_path)


def test_rows_are_split_by_question(build: Build) -> None:
    """Traces of one question stay together, whatever its case, marks and blanks."""
    build.add([make_pair(f"Q {n % 5}{'?' * (n % 2)}", f"trace {n}") for n in range(15)])
    train, held_out, counts = build.run()
    assert (len(train), len(held_out)) == (9, 2)
    asked = {row.problem.rstrip("?") for row in held_out if row.problem}
    assert len(asked) == 2
    assert asked.isdisjoint(read_question(row).rstrip("?") for row in train)
    assert counts["dropped"] == {"of a held-out group": 4}
    assert counts["read"] == 15


def test_held_out_rows_can_be_asked_and_graded(build: Build) -> None:
    build.add([make_pair(f"q{n}", f"<think>t</think>\n {n}") for n in range(9)])
    _, held_out, _ = build.run()
    for row in held_out:
        assert row.problem == read_question(row)
        assert row.solution == row.problem[1:]


def test_single_questions_are_held_out_before_what_cannot_be_asked(build: Build) -> None:
    turns = [{"role": role, "content": role} for role in ("user", "assistant", "user", "assistant")]
    build.add([{"text": f"text {n}"} for n in range(20)], "texts.jsonl")
    build.add([{"messages": turns}], "long.jsonl")
    build.add(make_pairs(3))
    _, held_out, _ = build.run()
    assert all(row.problem for row in held_out)
    _, held_out, _ = build.run("more", held_out=5)
    assert sum(row.problem is None for row in held_out) == 2


def test_the_bytes_depend_on_the_seed_and_rows_are_shuffled(build: Build) -> None:
    build.add(make_pairs(50))
    first, again, other = build.run("a")[0], build.run("b")[0], build.run("c", seed=2)[0]
    assert first == again
    assert first != other
    assert [row.id for row in first] != sorted(row.id for row in first)
    assert len({row.id for row in first}) == 48


def test_more_rows_change_little_of_the_split(build: Build) -> None:
    build.add(make_pairs(100))
    held_out = {row.problem for row in build.run("a", held_out=20)[1]}
    build.add(make_pairs(10, start=100), "more.jsonl")
    assert len(held_out - {row.problem for row in build.run("b", held_out=20)[1]}) < 8


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (make_pair(" \n"), "empty prompt"),
        (make_pair(answer=""), "empty answer"),
        (make_pair(answer="\ud800"), "not UTF-8"),
        (make_pair("x" * 200), "longer than max_characters"),
        (make_pair("q1", "a1"), "exact duplicate"),
        (make_pair(lang="fr"), "lang is not de|en"),
        (make_pair(lang=None), "lang is not de|en"),
    ],
)
def test_a_row_of_no_use_is_counted(build: Build, row: dict[str, Any], reason: str) -> None:
    good = [{**each, "lang": "en"} for each in make_pairs(5)]
    build.add([*good, {"lang": "de", **row}], keep=("lang=en|de",))
    train, held_out, counts = build.run(max_characters=100)
    assert len(train) + len(held_out) == 5
    assert counts["dropped"] == {reason: 1}
    assert counts["sources"][0]["examples"] == {reason: ["data.jsonl:6"]}


@pytest.mark.parametrize(
    ("turns", "reason"),
    [
        (["user"], "does not end in the assistant's turn"),
        ([], "does not end in the assistant's turn"),
        (["assistant"], "no user turn before the assistant's"),
        (["system", "assistant", "user", "assistant"], "no user turn before the assistant's"),
    ],
)
def test_a_conversation_of_no_use_is_counted(build: Build, turns: list[str], reason: str) -> None:
    build.add(make_pairs(5), "good.jsonl")
    build.add([{"messages": [{"role": role, "content": "x"} for role in turns]}])
    assert build.run()[2]["dropped"] == {reason: 1}


def test_rows_without_thinking(build: Build) -> None:
    thought = [make_pair(f"q{n}", "<think>\nt\n</think>\na") for n in range(4)]
    build.add([*thought, make_pair(), make_pair("p", "<think>\n\n</think>\n\na")])
    assert build.run("all")[2]["dropped"] == {}
    assert build.run("some", require_thinking=True)[2]["dropped"] == {"no thinking": 2}
    build.add([{"problem": "q", "thinking": " ", "solution": "s"}], "columns.jsonl")
    assert build.run("blank")[2]["dropped"] == {"no thinking": 1}


def test_bytes_that_are_no_utf_8_drop_their_row_alone(build: Build) -> None:
    lines = [json.dumps(row).encode() for row in make_pairs(5)]
    build.add(b"\n".join([*lines, b'{"prompt": "\xff", "completion": "a"}']))
    assert build.run()[2]["dropped"] == {"not UTF-8": 1}


def test_exact_duplicates_are_found_across_sources_and_forms(build: Build) -> None:
    build.add(make_pairs(5))
    turns = [{"from": "human", "value": "q3"}, {"from": "gpt", "value": "a3"}]
    build.add([{"conversations": turns}], "other.jsonl")
    counts = build.run()[2]
    assert counts["sources"][1]["dropped"] == {"exact duplicate": 1}


_LEAK = list("abcdefghijklmnop")


def test_training_rows_that_give_a_held_out_problem_away(build: Build) -> None:
    """Thirteen words in sequence, or the whole of a short problem in a later turn."""
    build.add([make_pair(" ".join(f"{word}{n}" for word in _LEAK)) for n in range(20)])
    _, held_out, _ = build.run("before")
    problem = str(held_out[0].problem)
    turns = [
        {"role": role, "content": text}
        for role, text in (("user", "hi"), ("assistant", "x"), ("user", problem.upper() + "!"))
    ]
    leaks = [
        {"messages": [*turns, {"role": "assistant", "content": "y"}]},
        {"text": f"Once, {' '.join(problem.split()[2:15])} came by."},
    ]
    build.add(leaks[:1], "turns.jsonl")
    build.add(leaks[1:], "text.jsonl")
    assert build.run("after")[2]["dropped"] == {"contains a held-out problem": 2}
    assert build.run("off", contamination_words=0)[2]["dropped"] == {}


def test_the_wording_of_the_task_gives_nothing_away(build: Build) -> None:
    build.add([make_pair(f"{' '.join(_LEAK)} {n}") for n in range(20)])
    train, held_out, counts = build.run()
    assert (len(train), len(held_out), counts["dropped"]) == (18, 2, {})


def test_weights(build: Build) -> None:
    build.add(make_pairs(40), "one.jsonl", weight=2.5)
    build.add(make_pairs(40, start=40), "two.jsonl", weight=0.5)
    train, _, counts = build.run()
    one = [row.id for row in train if row.source.startswith("one")]
    two = [row.id for row in train if row.source.startswith("two")]
    assert 80 < len(one) < 120
    assert 10 < len(two) < 30
    assert len(set(one + two)) == len(train)
    assert counts["sources"][1]["dropped"] == {
        "not drawn, by its source's weight": counts["dropped"]["not drawn, by its source's weight"]
    }


def test_single_turns_are_joined(build: Build) -> None:
    build.add(make_pairs(12), system="s")
    train, held_out, _ = build.run(conversation_extension=4)
    assert [len(row.messages) for row in train] == [9, 9, 5]
    assert [message.role for message in train[2].messages] == ["system", *["user", "assistant"] * 2]
    assert all(len(row.messages) == 3 for row in held_out)
    joined = sorted(name for row in train for name in row.id.split("+"))
    assert joined == sorted({f"{n:08d}" for n in range(1, 13)} - {row.id for row in held_out})


def test_preference_pairs_are_checked_and_refused(build: Build) -> None:
    build.add([{"prompt": f"q{n}", "chosen": "a", "rejected": "b"} for n in range(3)])
    with pytest.raises(StageError, match="preference pairs") as caught:
        build.run()
    assert "3 of them valid" in caught.value.on


def test_nothing_left_is_said_with_the_reasons(build: Build) -> None:
    build.add([make_pair(""), make_pair("q", "")])
    with pytest.raises(StageError, match="no row is left") as caught:
        build.run()
    assert "empty answer: 1; empty prompt: 1" in caught.value.why


def test_too_few_problems(build: Build) -> None:
    build.add([make_pair("q1"), make_pair("q2"), make_pair("q2", "b")])
    with pytest.raises(StageError, match="too few different problems"):
        build.run()


def test_a_filters_column_must_exist(build: Build) -> None:
    build.add(make_pairs(3), keep=("colour=red",))
    with pytest.raises(StageError, match="no 'colour'"):
        build.run()


def test_a_file_that_changed_after_planning(build: Build) -> None:
    build.add(make_pairs(5))
    (build.folder / "data.jsonl").write_text("{}")
    with pytest.raises(StageError, match="not the one that was planned"):
        build.run("a")
    (build.folder / "data.jsonl").unlink()
    with pytest.raises(StageError, match="is missing"):
        build.run("b")


def test_memory_does_not_grow_with_the_rows(build: Build) -> None:
    """Twenty times the rows; what Python holds at most stays within a megabyte."""
    peaks = []
    for count, name in ((200, "few"), (4000, "many")):
        build.sources.clear()
        build.add(
            b"".join(
                json.dumps(make_pair(f"q{n}", "x" * 1000)).encode() + b"\n" for n in range(count)
            )
        )
        tracemalloc.start()
        rows.run(
            build.inputs,
            replace(OPTIONS, sources=tuple(build.sources)),
            _make(build.folder / name),
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 1 << 20


def _make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_file_of_any_name_makes_the_same_rows_and_messages_say_its_own(tmp_path: Path) -> None:
    made = []
    for name in ("one.jsonl", "two.jsonl"):
        lines = [json.dumps(pair) for pair in make_pairs(5)]
        content = "\n".join([*lines, '{"prompt": "", "completion": ""}']).encode()
        (tmp_path / name).write_bytes(content)
        file = File(name="source-1.jsonl", sha256=hashlib.sha256(content).hexdigest())
        source = write_source(Source(files=(file,), is_file=True))
        options = replace(OPTIONS, sources=(source,))
        inputs = {"source-1": tmp_path / name}
        out = _make(tmp_path / f"{name}.out")
        rows.run(inputs, options, out)
        made.append([path.read_bytes() for path in sorted(out.iterdir())])
        bad = write_source(Source(files=(file,), is_file=True, format="text"))
        with pytest.raises(StageError) as caught:
            rows.run(inputs, replace(options, sources=(bad,)), out)
        assert caught.value.on == f"{name}:1"
    assert made[0] == made[1]
    assert b'"source": "source-1.jsonl:2"' in made[0][2]
    assert b'"source-1.jsonl:6"' in made[0][0]
