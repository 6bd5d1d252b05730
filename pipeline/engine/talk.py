"""What a program says, as lines that read well in a log: bars that redraw themselves are thin."""

import os
import re
import time
from collections.abc import Callable, Iterator

_END = re.compile(rb"\r\n|\n|\r(?!\n)")
_BAR_EVERY_S = 10.0


def read_lines(descriptor: int, *, clock: Callable[[], float] = time.monotonic) -> Iterator[bytes]:
    """Yield each line as soon as it is whole, without its end, until the other side closes.

    Of text that ends in a carriage return, which the next will overwrite on a terminal, one in ten
    seconds is yielded; the last state of a bar ends in a newline and always is.
    """
    rest, shown_s = b"", float("-inf")
    while chunk := os.read(descriptor, 1 << 16):
        rest += chunk
        # A carriage return at the very end may be the first half of a line's end.
        while (end := _END.search(rest)) and not (end[0] == b"\r" and end.end() == len(rest)):
            line, rest = rest[: end.start()], rest[end.end() :]
            if end[0] != b"\r":
                yield line
            elif line.strip() and clock() - shown_s >= _BAR_EVERY_S:
                shown_s = clock()
                yield line
    if rest.strip():
        yield rest.rstrip(b"\r")
