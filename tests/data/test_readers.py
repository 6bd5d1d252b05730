"""Each kind of file gives its records with their places; damage is a StageError alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.data import readers
from pipeline.data.readers import read_records
from pipeline.errors import StageError

_ROWS = [{"q": "é\u2028,\n", "a": "1"}, {"q": "x", "a": '"'}, {"q": "y", "a": "[]{}"}]


def read(folder: Path, content: bytes, reader: str) -> list[tuple[str, dict[str, Any]]]:
    (folder / "data").write_bytes(content)
    return [
        (record.where, record.columns) for record in read_records(folder / "data", reader, "data")
    ]


def test_json_lines(tmp_path: Path) -> None:
    lines = [json.dumps(row, ensure_ascii=False).encode() for row in _ROWS]
    content = b"\xef\xbb\xbf" + lines[0] + b"\r\n\n" + b"\n".join(lines[1:])
    assert read(tmp_path, content, "jsonl") == list(
        zip(["data:1", "data:3", "data:4"], _ROWS, strict=True)
    )


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 16])
@pytest.mark.parametrize("indent", [None, 2])
def test_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, indent: int | None
) -> None:
    """The window over the file ends anywhere, also inside of an element."""
    monkeypatch.setattr(readers, "_CHUNK_CHARACTERS", chunk)
    content = json.dumps(_ROWS, ensure_ascii=False, indent=indent).encode()
    assert [columns for _, columns in read(tmp_path, content, "json")] == _ROWS
    lines = "\n".join(json.dumps(row, indent=indent) for row in _ROWS).encode()
    assert [columns for _, columns in read(tmp_path, lines, "json")] == _ROWS
    assert read(tmp_path, b" [ ] ", "json") == []


def test_csv_and_tsv(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbfq,a\r\n"\xc3\xa9, ""x""\nnext",1\r\nb,\r\n'
    found = [{"q": 'é, "x"\nnext', "a": "1"}, {"q": "b", "a": ""}]
    assert read(tmp_path, content, "csv") == list(zip(["data:2", "data:4"], found, strict=True))
    assert read(tmp_path, b"q\ta\nx,y\t1\n", "tsv") == [("data:2", {"q": "x,y", "a": "1"})]


def test_plain_text_is_cut_at_blank_lines(tmp_path: Path) -> None:
    short, long = "a line\n", "x" * 5000 + "\n"
    found = read(tmp_path, f"\n{short}\n{short}\n\n{long}\n{short}".encode(), "text")
    assert found == [
        ("data:2", {"text": f"{short}\n{short}\n\n{long}".rstrip()}),
        ("data:9", {"text": short.rstrip()}),
    ]


def test_a_text_without_blank_lines_is_cut_at_line_ends(tmp_path: Path) -> None:
    line = "x" * 999 + "\n"
    found = read(tmp_path, (line * 40).encode(), "text")
    assert [where for where, _ in found] == ["data:1", "data:17", "data:33"]
    assert "".join(columns["text"] + "\n" for _, columns in found) == line * 40


def test_bytes_that_are_no_utf_8_pass_as_lone_surrogates(tmp_path: Path) -> None:
    for content, reader in (
        (b'{"q": "\xff"}\n', "jsonl"),
        (b'[{"q": "\xff"}]', "json"),
        (b"q\n\xff\n", "csv"),
    ):
        assert read(tmp_path, content, reader)[0][1] == {"q": "\udcff"}
    assert read(tmp_path, b"\xff\n", "text")[0][1] == {"text": "\udcff"}


@pytest.mark.parametrize(
    ("content", "reader", "on"),
    [
        (b'{"a": 1}\n[1]\n', "jsonl", "data:2"),
        (b'{"a": 1}\n{"a": \n', "jsonl", "data:2"),
        (b'{"a": NaN}\n', "jsonl", "data:1"),
        (b"[" * 100_000, "jsonl", "data:1"),
        (b'{"a": ' + b"9" * 5000 + b"}", "jsonl", "data:1"),
        (b'[{"a": 1}, {"a": ]', "json", "data:2"),
        (b'[{"a": 1}', "json", "data, after 1 rows"),
        (b'[{"a": 1} {"a": 2}]', "json", "data, after 1 rows"),
        (b'[{"a": 1}] x', "json", "data, after 1 rows"),
        (b'[{"a": 1}, 7]', "json", "data:2"),
        (b"[" * 100_000, "json", "data:1"),
        (b"a,b\n1,2,3\n", "csv", "data:2"),
        (b"a,b\n1\n", "csv", "data:2"),
        (b"a,a\n1,2\n", "csv", "data:1"),
        (b'a,b\n"1,2\n', "csv", "data:2"),
        (b'a,b\n"1"x,2\n', "csv", "data:2"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(
    tmp_path: Path, content: bytes, reader: str, on: str
) -> None:
    with pytest.raises(StageError) as caught:
        read(tmp_path, content, reader)
    assert caught.value.on == on


_PIECES = st.sampled_from(
    [
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b",",
        b":",
        b"\n",
        b"\r",
        b"\\",
        b"1",
        b"-",
        b"e",
        b"\xff",
        b"\0",
    ]
    + [b'"a"', b'{"a": 1}', b"null", b"NaN", b"\\ud800", b"\xef\xbb\xbf", b" "]
)


@pytest.mark.parametrize("reader", ["jsonl", "json", "csv", "tsv", "text"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.lists(_PIECES, max_size=12).map(b"".join) | st.binary(max_size=40))
@example(content=b"")
def test_any_bytes_are_records_or_a_stage_error(
    tmp_path: Path, reader: str, content: bytes
) -> None:
    try:
        found = read(tmp_path, content, reader)
    except StageError:
        return
    assert all(isinstance(columns, dict) for _, columns in found)
