"""A bad safetensors file is refused by its header, with the file and the tensor in the words."""

import json
from pathlib import Path

import pytest

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
            ["declares a tensor twice", "tensor a"],
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
