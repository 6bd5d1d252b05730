"""A GGUF is read, or refused, before a server starts on it."""

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.serve.gguf_file import read_gguf


def write_string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()


def make_file() -> bytes:
    """Return a file of one 4 x 32 Q8_0 tensor, with a vocabulary too long to keep."""
    words = "".join(f"{n:x}" for n in range(100))
    numbers = {"block_count": 2, "attention.head_count": 8, "attention.head_count_kv": 2}
    numbers |= {"embedding_length": 256, "attention.key_length": 40}
    metadata = [write_string("general.architecture") + struct.pack("<I", 8) + write_string("llama")]
    metadata += [
        write_string(f"llama.{name}") + struct.pack("<II", 4, value)
        for name, value in numbers.items()
    ]
    metadata += [
        write_string("tokenizer.chat_template") + struct.pack("<I", 8) + write_string("{{ é }}"),
        write_string("tokens")
        + struct.pack("<IIQ", 9, 8, len(words))
        + b"".join(map(write_string, words)),
        write_string("scores") + struct.pack("<IIQ", 9, 6, 100) + bytes(400),
        write_string("ends") + struct.pack("<IIQ", 9, 4, 2) + struct.pack("<II", 2, 7),
    ]
    tensor = write_string("w") + struct.pack("<IQQIQ", 2, 32, 4, 8, 0)
    head = struct.pack("<4sIQQ", b"GGUF", 3, 1, len(metadata)) + b"".join(metadata) + tensor
    return head + bytes(-len(head) % 32) + bytes(4 * 34)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_file_is_read_without_its_tensors(tmp_path: Path) -> None:
    found = read_gguf(write(tmp_path / "model.gguf", make_file()))
    assert (found.architecture, found.chat_template) == ("llama", "{{ é }}")
    assert (found.tensor_bytes, found.size_bytes) == ({"w": 4 * 34}, len(make_file()))
    assert found.metadata["ends"] == [2, 7]
    assert found.metadata["scores"] == 100
    assert found.read_number("block_count") == 2
    assert found.read_number("vocab_size") is None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda data: data[:-1], "it was cut off"),
        (lambda data: data[:60], "ends within its header"),
        (lambda data: b"", "empty"),
        (lambda data: b"PK\x03\x04" + data[4:], "does not begin with GGUF"),
        (lambda data: data[:4] + struct.pack("<I", 2) + data[8:], "version 2"),
    ],
)
def test_what_cannot_be_served_is_refused(tmp_path: Path, damage: object, words: str) -> None:
    assert callable(damage)
    with pytest.raises(UsageError, match=words) as caught:
        read_gguf(write(tmp_path / "model.gguf", damage(make_file())))
    assert caught.value.on == str(tmp_path / "model.gguf")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_gguf(tmp_path / "none.gguf")


@settings(max_examples=300)
@given(place=st.integers(0, 900), values=st.binary(min_size=1, max_size=12))
def test_no_damage_gives_another_error(
    tmp_path_factory: pytest.TempPathFactory, place: int, values: bytes
) -> None:
    data = bytearray(make_file())
    data[place : place + len(values)] = values
    path = write(tmp_path_factory.getbasetemp() / "damaged.gguf", bytes(data))
    try:
        read_gguf(path)
    except UsageError as error:
        assert error.why
