"""Lines come whole and at once; a bar that redraws itself does not fill a log."""

import os
from itertools import count

import pytest

from pipeline.engine.talk import read_lines


def _read(*chunks: bytes, step_s: float = 1.0) -> list[bytes]:
    """Return the lines of what is written chunk by chunk, on a clock that ticks when asked."""
    reader, writer = os.pipe()
    seconds = count(0.0, step_s)
    lines = read_lines(reader, clock=lambda: next(seconds))
    for chunk in chunks:
        os.write(writer, chunk)
    os.close(writer)
    told = list(lines)
    os.close(reader)
    return told


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([b"one\ntwo\n"], [b"one", b"two"]),
        ([b"one\r\ntwo\r\n"], [b"one", b"two"]),
        ([b"no end"], [b"no end"]),
        ([b"\n\n"], [b"", b""]),
        ([], []),
    ],
)
def test_lines_come_whole(chunks: list[bytes], lines: list[bytes]) -> None:
    assert _read(*chunks) == lines


def test_a_bar_is_thinned_and_its_last_state_stays() -> None:
    bar = b"".join(b"\r%d%%" % percent for percent in range(101)) + b"\n"
    told = _read(b"start\n", bar, b"end\n")
    assert told[0] == b"start"
    assert told[-2:] == [b"100%", b"end"]
    assert 3 <= len(told) < 20


def test_a_line_is_there_before_the_program_ends() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"first\nsec")
    assert next(read_lines(reader)) == b"first"
    os.close(writer)
    os.close(reader)
