"""The Arrow files hold exactly the rendered rows, however they were cut into parts."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.data import dataset as stage
from pipeline.data.partition import PART_SCHEMA, SCHEMA, Plan, list_parts, render_part
from pipeline.data.row import Row
from pipeline.data.style import Style
from pipeline.errors import StageError
from tests.data.canonical import assistant, chat, user, write_canonical
from tests.tiny_text import BOS, END_INST, EOS, INST, byte_ids, write_tokenizer

pytestmark = pytest.mark.train

OPTIONS = stage.Options(
    sequence_length=100,
    too_long="drop",
    supervise="every",
    thinking="text",
)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("text")
    write_tokenizer(folder)
    return folder


def make_row(row_id: str, thinking: str) -> Row:
    return chat(user("a?"), assistant("b", thinking), row_id=row_id)


SHORT = make_row("short", "t")
LONG = make_row("long", "t" * 90)


def expected(thinking: str) -> tuple[list[int], list[int]]:
    prompt = [BOS, INST, *byte_ids("a?"), END_INST]
    answer = [*byte_ids(f"<think>\n{thinking}\n</think>\nb"), EOS]
    return prompt + answer, [0] * len(prompt) + [1] * len(answer)


def make(folder: Path, text: Path, train: list[Row], options: stage.Options = OPTIONS) -> Path:
    for name in ("rows", "out", "work"):
        (folder / name).mkdir()
    write_canonical(folder / "rows/train.jsonl", train)
    write_canonical(folder / "rows/held_out.jsonl", [SHORT])
    inputs = {"text": text, "rows": folder / "rows"}
    stage.run(inputs, options, folder / "out", folder / "work")
    return folder / "out"


def read(path: Path) -> list[dict[str, Any]]:
    with pa.OSFile(str(path)) as source:
        table = pa.ipc.open_stream(source).read_all()
    assert table.schema == SCHEMA
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def test_every_token_of_every_row(tmp_path: Path, text: Path) -> None:
    row = replace(SHORT, source="data.jsonl:7", domain="sums")
    out = make(tmp_path, text, [row, make_row("other", "tt")])
    names = ["held_out.arrow", "statistics.json", "train.arrow"]
    assert sorted(path.name for path in out.iterdir()) == names
    first, second = read(out / "train.arrow")
    assert (first["row_id"], second["row_id"]) == ("short", "other")
    assert (first["input_ids"], first["completion_mask"]) == expected("t")
    assert (second["input_ids"], second["completion_mask"]) == expected("tt")
    assert (first["source"], first["domain"]) == ("data.jsonl:7", "sums")
    length = len(expected("t")[0])
    assert (first["length"], first["supervised"]) == (length, length - 5)


def test_a_row_that_is_too_long_is_counted(tmp_path: Path, text: Path) -> None:
    out = make(tmp_path, text, [LONG, SHORT])
    summary = json.loads((out / "statistics.json").read_text())["train"]
    length = len(expected("t")[0])
    assert (summary["rows"], summary["tokens"]) == (1, length)
    assert summary["dropped"] == {"longer than sequence_length": 1}
    assert summary["supervised_tokens"] == length - 5


def test_nothing_fits(tmp_path: Path, text: Path) -> None:
    with pytest.raises(StageError, match="no train row is left") as caught:
        make(tmp_path, text, [SHORT, LONG], replace(OPTIONS, sequence_length=8))
    assert f"shortest has {len(expected('t')[0])} tokens" in caught.value.why


def test_a_prompt_is_cut_and_no_answer(tmp_path: Path, text: Path) -> None:
    older = (user("0123456789"), assistant("older"))
    rows = [
        chat(*older, user("a?"), assistant("b", "t"), row_id="conversation"),
        chat(user("x" * 500 + "a?"), assistant("b", "t"), row_id="question"),
        LONG,
    ]
    limit = len(expected("t")[0])
    options = replace(OPTIONS, sequence_length=limit, too_long="truncate")
    out = make(tmp_path, text, rows, options)
    found = read(out / "train.arrow")
    assert [row["row_id"] for row in found] == ["conversation", "question"]
    for row in found:
        assert (row["input_ids"], row["completion_mask"]) == expected("t")
    assert json.loads((out / "statistics.json").read_text())["train"]["truncated"] == 2


def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, text: Path) -> None:
    bad = replace(chat(user("a"), user("b"), row_id="bad"), source="data.jsonl:9")
    with pytest.raises(StageError, match="the chat template fails") as caught:
        make(tmp_path, text, [SHORT, bad])
    assert caught.value.on == "row bad (train.jsonl:2, from data.jsonl:9): 'a'"


def test_a_long_text_becomes_rows_of_which_the_last_ends(tmp_path: Path, text: Path) -> None:
    words = "ab\u00e9 " * 50
    out = make(tmp_path, text, [replace(Row(id="book", text=words), source="a.txt:1"), SHORT])
    *pieces, short = read(out / "train.arrow")
    assert [row["row_id"] for row in pieces] == ["book#1", "book#2", "book#3"]
    assert [row["continues"] for row in [*pieces, short]] == [True, True, False, False]
    taught = [i for row in pieces for i in row["input_ids"][1:]]
    assert taught == [*byte_ids(words), EOS]
    for row in pieces:
        assert row["length"] == len(row["input_ids"]) <= 100
        assert row["input_ids"][0] == BOS
        assert row["completion_mask"] == [0] + [1] * (row["length"] - 1)
        assert row["source"] == "a.txt:1"


def test_the_same_bytes_whatever_renders_them(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [make_row(f"r{n}", "t" * (n % 70)) for n in range(60)]
    monkeypatch.setattr(stage, "list_parts", lambda path: list_parts(path, 1000))
    outs = []
    for processes in (1, 3):
        monkeypatch.setattr(stage, "count_processes", lambda parts, n=processes: n)
        (tmp_path / str(processes)).mkdir()
        outs.append(make(tmp_path / str(processes), text, rows))
    for path in outs[0].iterdir():
        assert path.read_bytes() == (outs[1] / path.name).read_bytes()
    ids = [row["row_id"] for row in read(outs[0] / "train.arrow")]
    assert ids == [row.id for row in rows if len(row.messages[1].thinking or "") <= 69]


def test_the_first_bad_row_is_named_whatever_finds_one(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [make_row(f"r{n}", "t") for n in range(60)]
    for bad in (31, 50):
        rows[bad] = chat(user("a"), user("b"), row_id=f"bad{bad}")
    monkeypatch.setattr(stage, "list_parts", lambda path: list_parts(path, 300))
    monkeypatch.setattr(stage, "count_processes", lambda parts: 3)
    with pytest.raises(StageError) as caught:
        make(tmp_path, text, rows)
    assert caught.value.on.startswith("row bad31 (train.jsonl:32)")
    assert not list((tmp_path / "work").glob("*.unfinished"))


def make_plan(text: Path) -> Plan:
    return Plan(text=text, style=Style(), sequence_length=100, too_long="drop")


def test_parts_are_the_whole_file(tmp_path: Path, text: Path) -> None:
    path = tmp_path / "train.jsonl"
    write_canonical(path, [make_row(f"r\u2028{n}", "t") for n in range(50)])
    parts = list_parts(path, 700)
    assert len(parts) > 5
    assert parts[-1].end == path.stat().st_size
    assert [part.start for part in parts[1:]] == [part.end for part in parts[:-1]]
    batches = [batch for part in parts for batch in render_part(part, make_plan(text))]
    assert all(batch.schema == PART_SCHEMA for batch in batches)
    found = [row_id for batch in batches for row_id in batch.column("row_id").to_pylist()]
    assert found == [f"r\u2028{n}" for n in range(50)]


def test_the_first_bad_row_is_named_whatever_step_finds_it(tmp_path: Path, text: Path) -> None:
    """The template refuses row 3; line 5, which is no row at all, fails in an earlier step."""
    path = tmp_path / "train.jsonl"
    bad = chat(user("a"), user("b"), row_id="bad")
    write_canonical(path, [SHORT, SHORT, bad, SHORT])
    path.write_bytes(path.read_bytes() + b"no row\n")
    with pytest.raises(StageError, match="the chat template fails") as caught:
        [*render_part(list_parts(path)[0], make_plan(text))]
    assert caught.value.on.startswith("row bad (train.jsonl:3)")


def test_a_part_that_is_finished_is_not_rendered_again(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.jsonl"
    rows = [make_row(f"r{n}", "t") for n in range(50)]
    write_canonical(path, rows)
    parts = list_parts(path, 1000)
    rendered: list[int] = []
    monkeypatch.setattr(stage, "render_part", note_starts(rendered, fail_at=parts[3].start))
    with pytest.raises(StageError, match="stopped"):
        list(stage.render_parts(parts, make_plan(text), tmp_path, processes=1))
    assert rendered == [part.start for part in parts[:4]]
    rendered.clear()
    monkeypatch.setattr(stage, "render_part", note_starts(rendered, fail_at=-1))
    done = list(stage.render_parts(parts, make_plan(text), tmp_path, processes=1))
    assert rendered == [part.start for part in parts[3:]]
    assert len(done) == len(parts)
    assert all(path.exists() for path in done)


def note_starts(starts: list[int], *, fail_at: int) -> Callable[..., object]:
    def render(part: object, plan: Plan) -> object:
        start = part.start  # type: ignore[attr-defined]
        starts.append(start)
        if start == fail_at:
            raise StageError("stopped", on="part", why="a test", then="go on")
        return render_part(part, plan)  # type: ignore[arg-type]

    return render


def test_a_process_that_dies_is_an_error(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.jsonl"
    write_canonical(path, [make_row(f"r{n}", "t") for n in range(50)])
    monkeypatch.setattr(stage, "render_part", lambda part, plan: os._exit(9))
    with pytest.raises(StageError, match="a process that renders rows died"):
        list(stage.render_parts(list_parts(path, 1000), make_plan(text), tmp_path, processes=2))
