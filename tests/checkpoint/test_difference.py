"""Whatever two files hold, what differs is said in lines that name the place, and never a trace."""

import json
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from pipeline.checkpoint.difference import describe, main
from pipeline.checkpoint.llama_source import import_gguf
from pipeline.errors import StageError

pytestmark = pytest.mark.convert


def describe_bytes(folder: Path, name: str, sealed: bytes, rebuilt: bytes) -> list[str]:
    """Return the account of two files of these bytes and this name."""
    paths = folder / "sealed" / name, folder / "rebuilt" / name
    for path, content in zip(paths, (sealed, rebuilt), strict=True):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return describe(*paths)


def describe_json(folder: Path, sealed: Any, rebuilt: Any) -> list[str]:
    texts = json.dumps(sealed).encode(), json.dumps(rebuilt).encode()
    return describe_bytes(folder, "a.json", *texts)


def test_values_of_json_are_told_by_path(tmp_path: Path) -> None:
    sealed = {"a": {"b": [0, 1, 2, "old"]}, "gone": [1], "с": 1, "x.y": None, "list": [1, 2]}
    rebuilt = {"a": {"b": [0, 1, 2, "new"]}, "с": 2, "x.y": True, "list": [1], "come": {"z": 1}}
    assert describe_json(tmp_path, sealed, rebuilt) == [
        '$.a.b[3]: "old" -> "new"',
        "$.gone: only in the sealed artifact: [1]",
        "$.с: 1 -> 2",
        '$["x.y"]: null -> true',
        "$.list[1]: only in the sealed artifact: 2",
        '$.come: only in the rebuilt one: {"z": 1}',
    ]


@pytest.mark.parametrize(
    ("sealed", "rebuilt", "change"),
    [
        ("1", "1.0", "$: 1 -> 1.0"),
        ("1", "true", "$: 1 -> true"),
        ("0.0", "-0.0", "$: 0.0 -> -0.0"),
        ("[]", "{}", "$: [] -> {}"),
        ("null", '"null"', '$: null -> "null"'),
        ("0.1", "0.10000000000000002", "$: 0.1 -> 0.10000000000000002"),
        ("NaN", "1", "$: NaN -> 1"),
        ('"\\ud800"', '"\\n"', '$: "\\ud800" -> "\\n"'),
    ],
)
def test_values_that_only_look_alike_differ(
    tmp_path: Path, sealed: str, rebuilt: str, change: str
) -> None:
    assert describe_bytes(tmp_path, "a.json", sealed.encode(), rebuilt.encode()) == [change]


@pytest.mark.parametrize(
    ("sealed", "rebuilt", "line"),
    [
        ('{"a":1,"b":NaN}', '{"b":NaN,"a":1}', "only the order of keys differs"),
        ('{"a":[{"b":1,"c":2}]}', '{"a":[{"c":2,"b":1}]}', "only the order of keys differs"),
        ('{"a": 1}', '{"a":1}\n', "only whitespace or notation differs"),
        ('"\\u00e9"', '"é"', "only whitespace or notation differs"),
    ],
)
def test_json_that_means_the_same_is_said_to(
    tmp_path: Path, sealed: str, rebuilt: str, line: str
) -> None:
    found = describe_bytes(tmp_path, "a.json", sealed.encode(), rebuilt.encode())
    assert found == [f"the values are equal; {line}"]


def test_long_values_are_cut_to_where_they_differ(tmp_path: Path) -> None:
    sealed, rebuilt = "a" * 1000 + "b" * 100, "a" * 1000 + "c" * 10
    assert describe_json(tmp_path, {"k": sealed}, {"k": rebuilt}) == [
        f'$.k: ...{"a" * 20}{"b" * 60}... -> ...{"a" * 20}{"c" * 10}"'
    ]
    assert describe_json(tmp_path, {"k": "a" * 1000}, {}) == [
        f'$.k: only in the sealed artifact: "{"a" * 79}...'
    ]


def test_of_many_differences_twenty_are_told(tmp_path: Path) -> None:
    for count in (20, 21, 5000):
        found = describe_json(tmp_path, list(range(count)), [-1] * count)
        assert found[:20] == [f"$[{number}]: {number} -> -1" for number in range(20)]
        assert found[20:] == ([f"... and {count - 20:,} more"] if count > 20 else [])


def test_json_lines_are_told_by_line_and_path(tmp_path: Path) -> None:
    sealed = b'{"answer": 1}\n{"answer": 2}\n{"answer": 3, "id": 7}\nno json\n'
    rebuilt = b'{"answer": 1}\n{"answer":2}\n{"answer": 4, "id": 7}\n{"b": 1}\n{"answer": 5}\n'
    assert describe_bytes(tmp_path, "a.jsonl", sealed, rebuilt) == [
        "4 lines -> 5 lines",
        "line 3 $.answer: 3 -> 4",
        'line 4 $: "no json\\n" -> {"b": 1}',
    ]
    assert describe_bytes(tmp_path, "a.jsonl", b'{"a": 1}\n{}\n', b'{"a":1}\n{}') == [
        "the values are equal; only the order of keys, whitespace or notation differs"
    ]


@pytest.mark.parametrize("bad", ["{", "", '{"a": 1, "a": 2}', "[" * 100_000, "1" * 5000])
def test_json_that_does_not_parse_is_told_as_text(tmp_path: Path, bad: str) -> None:
    first, second = describe_bytes(tmp_path, "a.json", b"[]", bad.encode())
    assert first.startswith("no sound JSON in the rebuilt one: the file does not parse (")
    assert second.startswith('line 1: "[]" -> ' if bad else "line 1: only in the sealed artifact")


def test_json_of_any_depth_is_told(tmp_path: Path) -> None:
    """As far as the parser goes; how far that is depends on how deep the caller is."""
    for depth in range(50, 1100, 50):
        texts = (f"{'[' * depth}{leaf}{']' * depth}".encode() for leaf in (1, 2))
        found = describe_bytes(tmp_path, "a.json", *texts)
        assert found[-1].startswith(("$[0][0]", "line 1: "))


@pytest.mark.parametrize(
    ("sealed", "rebuilt", "line"),
    [
        (b"a\nb\nc\n", b"a\nB\nC\n", 'line 2: "b" -> "B"'),
        (b"a\nb\n", b"a\n", 'line 2: only in the sealed artifact: "b\\n"'),
        (b"a\n", b"a\n\n", 'line 2: only in the rebuilt one: "\\n"'),
        (b"a\n", b"a", 'line 1: "a\\n" -> "a"'),
        (b"a\n", b"a\r\n", 'line 1: "a" -> "a\\r"'),
        (b"\xff\n", "é\n".encode(), 'line 1: "\\\\xff" -> "é"'),
    ],
)
def test_text_is_told_by_its_first_line_that_differs(
    tmp_path: Path, sealed: bytes, rebuilt: bytes, line: str
) -> None:
    assert describe_bytes(tmp_path, "a.txt", sealed, rebuilt) == [line]


@pytest.mark.parametrize(
    ("sealed", "rebuilt", "line"),
    [
        (b"\0abcde", b"\0aBCde", "6 bytes, 2 differ, the first at offset 2"),
        (b"\0ab", b"\0abcd", "3 bytes -> 5 bytes; the first 3 bytes are equal"),
        (
            b"\0abc",
            b"\1a",
            "4 bytes -> 2 bytes; of the first 2 bytes, 1 differ, the first at offset 0",
        ),
        (
            b"\0",
            b"text",
            "1 bytes -> 4 bytes; of the first 1 bytes, 1 differ, the first at offset 0",
        ),
    ],
)
def test_other_files_are_told_by_their_bytes(
    tmp_path: Path, sealed: bytes, rebuilt: bytes, line: str
) -> None:
    assert describe_bytes(tmp_path, "a.arrow", sealed, rebuilt) == [line]


def test_large_files_are_compared_to_their_end(tmp_path: Path) -> None:
    sealed = bytearray(40_000_000)
    rebuilt = bytearray(sealed)
    rebuilt[20_000_000] = rebuilt[39_999_999] = 1
    assert describe_bytes(tmp_path, "a.bin", bytes(sealed), bytes(rebuilt)) == [
        "40,000,000 bytes, 2 differ, the first at offset 20,000,000"
    ]


def make_safetensors() -> bytes:
    tensors = {"a": np.arange(6, dtype=np.float32), "b": np.ones((2, 2))}
    return bytes(save(tensors, metadata={"format": "pt"}))


def make_gguf() -> bytes:
    gguf = import_gguf()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_array("tokens", ["a", "b"])
        writer.add_array("types", [1, 2])
        writer.add_tensor("t", np.arange(4, dtype=np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def make_json() -> bytes:
    return json.dumps({"a": [1, {"b": None}], "c": "text"}).encode()


MAKERS = {".safetensors": make_safetensors, ".gguf": make_gguf, ".json": make_json}


@pytest.mark.parametrize("suffix", [*MAKERS, ".jsonl", ".txt"])
@given(seed=st.integers(0, 2**32))
def test_a_damaged_file_of_any_kind_is_told(suffix: str, seed: int) -> None:
    chance = random.Random(seed)
    sealed = MAKERS.get(suffix, make_json)()
    rebuilt = bytearray(sealed)
    for _ in range(chance.randint(1, 3)):
        rebuilt[chance.randrange(len(rebuilt))] = chance.randrange(256)
    del rebuilt[chance.choice([len(rebuilt), chance.randrange(len(rebuilt))]) :]
    with tempfile.TemporaryDirectory() as folder:
        found = describe_bytes(Path(folder), f"a{suffix}", sealed, bytes(rebuilt))
    assert (found == ["no byte differs"]) == (rebuilt == sealed)
    assert 1 <= len(found) <= 21
    assert all(line.isprintable() for line in found)


def test_a_name_in_a_file_cannot_break_the_line(tmp_path: Path) -> None:
    sealed, rebuilt = ({"a\nb\x1b[1m": np.full(1, value)} for value in (0.0, 1.0))
    found = describe_bytes(tmp_path, "a.safetensors", save(sealed), save(rebuilt))
    assert found == ["tensor a\\nb\\x1b[1m F64 [1]: 1 of 1 values differ, max abs difference 1"]


def test_the_command_tells_every_file_under_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed, rebuilt = tmp_path / "sealed", tmp_path / "rebuilt"
    for folder, value in ((sealed, 1), (rebuilt, 2)):
        (folder / "part").mkdir(parents=True)
        (folder / "part" / "metrics.json").write_text(json.dumps({"loss": value, "steps": value}))
    (sealed / "gone.json").write_text("{}")
    (rebuilt / "come.gguf").write_text("")
    names = ["gone.json", "part/metrics.json", "come.gguf"]
    assert main([str(sealed), str(rebuilt), *names]) == 0
    captured = capsys.readouterr()
    assert captured.out == (
        "gone.json: only in the sealed artifact\n"
        "part/metrics.json: $.loss: 1 -> 2\n"
        "part/metrics.json: $.steps: 1 -> 2\n"
        "come.gguf: only in the rebuilt one\n"
    )
    assert captured.err == ""


def test_what_cannot_be_read_is_an_error_after_the_rest_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed, rebuilt = tmp_path / "sealed", tmp_path / "rebuilt"
    (sealed / "folder.json").mkdir(parents=True)
    (rebuilt / "folder.json").mkdir(parents=True)
    (sealed / "a.txt").write_text("a")
    (rebuilt / "a.txt").write_text("b")
    assert main([str(sealed), str(rebuilt), "none.json", "folder.json", "a.txt"]) == 5
    captured = capsys.readouterr()
    assert captured.out == 'a.txt: line 1: "a" -> "b"\n'
    assert f"a file cannot be read\n  on:   {sealed / 'none.json'}\n" in captured.err
    assert f"on:   {sealed / 'folder.json'}\n" in captured.err
    with pytest.raises(StageError, match="cannot be read"):
        describe(sealed / "none.json", rebuilt / "none.json")
