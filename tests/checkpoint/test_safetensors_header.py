"""A bad safetensors file is refused by its header, with the file and the tensor in the words."""

import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.checkpoint.safetensors_header import read_header
from pipeline.errors import StageError

TWO = {
    "__metadata__": {"format": "pt"},
    "first": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]},
    "second": {"dtype": "F32", "shape": [], "data_offsets": [8, 12]},
}


def write(path: Path, header: str, data_bytes: int) -> Path:
    text = header.encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(data_bytes))
    return path


def test_a_sound_header_gives_names_dtypes_and_shapes(tmp_path: Path) -> None:
    entries = read_header(write(tmp_path / "m.safetensors", json.dumps(TWO), 12))
    assert [(e.name, e.dtype, e.shape, e.size_bytes) for e in entries] == [
        ("first", "BF16", (2, 2), 8),
        ("second", "F32", (), 4),
    ]


@pytest.mark.parametrize(
    ("header", "data_bytes", "words"),
    [
        (json.dumps(TWO), 11, ["truncated", "m.safetensors, tensor second", "11"]),
        (json.dumps(TWO), 13, ["longer than its header", "13"]),
        ("{nonsense", 12, ["header is unreadable", "no JSON"]),
        ("[]", 12, ["header is unreadable"]),
        (
            '{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}, "a": {}}',
            1,
            ["declares something twice", "tensor a"],
        ),
        (
            '{"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 1]}}',
            1,
            ["declares a tensor wrongly", "tensor a"],
        ),
        (
            '{"a": {"dtype": "Q7", "shape": [1], "data_offsets": [0, 1]}}',
            1,
            ["declares a tensor wrongly", "Q7"],
        ),
        (
            '{"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}',
            2,
            ["overlap or leave gaps", "tensor a"],
        ),
        (
            '{"a": {"dtype": "U8", "shape": [true], "data_offsets": [0, 1]}}',
            1,
            ["declares a tensor wrongly", "tensor a"],
        ),
        (
            '{"a": {"dtype": "U8", "shape": [0, 9223372036854775808], "data_offsets": [0, 0]}}',
            0,
            ["declares a tensor wrongly", "tensor a"],
        ),
        ('{"__metadata__": {"format": 1}}', 0, ["header is unreadable", "__metadata__"]),
        ("[" * 100_000, 0, ["header is unreadable"]),
        (" {}", 0, ["header is unreadable"]),
    ],
)
def test_a_bad_header_is_refused(
    tmp_path: Path, header: str, data_bytes: int, words: list[str]
) -> None:
    with pytest.raises(StageError) as error:
        read_header(write(tmp_path / "m.safetensors", header, data_bytes))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("data", [b"", b"\x01\x02", b"\xff" * 8, (50).to_bytes(8, "little") + b"{"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(StageError, match=r"m\.safetensors"):
        read_header(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="missing"):
        read_header(tmp_path / "m.safetensors")


def flip_bytes(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(len(data))] = chance.randrange(256)


def cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def insert(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(len(data))
    data[at:at] = chance.randbytes(chance.randint(1, 20))


def change_length(data: bytearray, chance: random.Random) -> None:
    length = chance.choice([0, 1, 2**63, 2**64 - 1, chance.randrange(400), chance.getrandbits(64)])
    data[:8] = length.to_bytes(8, "little")


ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 2**63, 10**30, 1.5, float("nan"), "", "BF16", "F4", "\ud800", [], [0],
    [0, 8], [8, 0], [[0], 8], [0, 8, 16], {}, {"dtype": "F32"}, {"0": 1, "8": 2},
)  # fmt: skip


def change_value(data: bytearray, chance: random.Random) -> None:
    """Put something odd somewhere into the header, and keep it JSON."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    place = chance.choice([header, *(each for each in header.values() if isinstance(each, dict))])
    key = chance.choice([*place, "other", "data_offsets", "__metadata__"])
    place[key] = chance.choice(ODD)
    text = json.dumps(header).encode()
    data[: 8 + length] = len(text).to_bytes(8, "little") + text


SPOILERS = (flip_bytes, cut, insert, change_length, change_value)


@pytest.mark.parametrize("spoil", SPOILERS)
@settings(max_examples=150)
@given(seed=st.integers(0, 2**32))
def test_a_damaged_file_is_read_as_it_is_or_refused_by_name(
    spoil: Callable[[bytearray, random.Random], None], seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "m.safetensors", json.dumps(TWO), 12)
        data = bytearray(path.read_bytes())
        spoil(data, random.Random(seed))
        path.write_bytes(data)
        try:
            entries = read_header(path)
        except StageError as error:
            assert error.on.startswith("m.safetensors")
            assert str(error)
        else:
            length = int.from_bytes(data[:8], "little")
            assert sum(each.size_bytes for each in entries) == len(data) - 8 - length
            assert all(isinstance(each.name, str) for each in entries)
