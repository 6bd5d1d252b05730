"""Bad rows are named by file, line and column; no held-out problem is trained on."""

import hashlib
import json
from pathlib import Path

import pytest

from pipeline.errors import StageError
from pipeline.sft import rows

COLUMNS = ("question", "reasoning", "answer")


def write_source(folder: Path, lines: list[bytes]) -> rows.Options:
    content = b"\n".join(lines) + b"\n"
    (folder / "data.jsonl").write_bytes(content)
    return rows.Options(
        file="data.jsonl",
        sha256=hashlib.sha256(content).hexdigest(),
        columns=COLUMNS,
        held_out=2,
        seed=1,
    )


def make_line(question: str = "q", reasoning: str = "r", answer: str = "a") -> bytes:
    row = {"question": question, "reasoning": reasoning, "answer": answer}
    return json.dumps(row, ensure_ascii=False).encode()


def run(folder: Path, options: rows.Options) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    out = folder / "out"
    out.mkdir()
    rows.run({"source": folder}, options, out)
    assert sorted(path.name for path in out.iterdir()) == ["held_out.jsonl", "train.jsonl"]
    train, held_out = (
        [json.loads(line) for line in (out / name).read_bytes().split(b"\n")[:-1]]
        for name in ("train.jsonl", "held_out.jsonl")
    )
    return train, held_out


def test_rows_are_split_by_problem(tmp_path: Path) -> None:
    lines = [make_line(f"q{n % 5}", f"trace {n}", str(n % 5)) for n in range(15)]
    train, held_out = run(tmp_path, write_source(tmp_path, lines))
    assert len(train) == 9
    assert len(held_out) == 2
    assert {row["problem"] for row in train}.isdisjoint(row["problem"] for row in held_out)
    assert list(train[0]) == ["id", "problem", "thinking", "solution"]


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    options = write_source(tmp_path, [make_line(f"é{n}") for n in range(9)])
    found = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        rows.run({"source": tmp_path}, options, tmp_path / name)
        found.add((tmp_path / name / "train.jsonl").read_bytes())
    assert len(found) == 1
    assert "é".encode() in found.pop()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"question": "q", "reasoning": "r"}', "no 'answer'"),
        (b'{"question": "q", "answer": "a"}', "no 'reasoning'"),
        (make_line(question="  "), "no 'question'"),
        (b'{"question": "q", "reasoning": "r", "answer": 7}', "no 'answer'"),
        (b'{"question": "q", "reasoning": "r", "answer": null}', "no 'answer'"),
        (b'{"question": "\\ud800", "reasoning": "r", "answer": "a"}', "not text"),
        (make_line(reasoning="a </think> b"), "contains </think>"),
        (b"[1]", "not a JSON object"),
        (b'{"question": ', "not JSON"),
        (b'{"question": "\xff"}', "not UTF-8"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, line: bytes, said: str) -> None:
    options = write_source(tmp_path, [make_line("q1"), make_line("q2"), line, make_line("q3")])
    with pytest.raises(StageError) as caught:
        run(tmp_path, options)
    assert said in caught.value.what
    assert caught.value.on == "data.jsonl:3"
    assert not list((tmp_path / "out").iterdir())


def test_a_line_separator_inside_a_text_ends_no_row(tmp_path: Path) -> None:
    lines = [make_line(f"q{n}\u2028x") for n in range(4)]
    train, _ = run(tmp_path, write_source(tmp_path, lines))
    assert all(row["problem"].endswith("\u2028x") for row in train)


def test_too_few_problems(tmp_path: Path) -> None:
    options = write_source(tmp_path, [make_line("q1"), make_line("q2"), make_line("q2")])
    with pytest.raises(StageError, match="too few different problems"):
        run(tmp_path, options)


def test_a_file_that_changed_after_planning(tmp_path: Path) -> None:
    options = write_source(tmp_path, [make_line(f"q{n}") for n in range(4)])
    (tmp_path / "data.jsonl").write_bytes(make_line())
    with pytest.raises(StageError, match="not the one that was planned"):
        run(tmp_path, options)
    (tmp_path / "data.jsonl").unlink()
    with pytest.raises(StageError, match="is missing"):
        rows.run({"source": tmp_path}, options, tmp_path / "out")
