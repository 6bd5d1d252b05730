"""sha256 of many files at once: one thread per processor, since hashlib lets go of Python's lock.

One file is one stream, so that the largest starts first.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Lock

from pipeline.artifact.progress import Progress
from pipeline.artifact.rule import Digest

_CHUNK_BYTES = 1 << 20
_SAY_FROM_BYTES = 1 << 30


def hash_file(path: Path) -> Digest:
    """Return the sha256 of the file's bytes."""
    return _hash(path, lambda size_bytes: None, Event())


def hash_files(paths: Sequence[Path], *, title: str = "hash") -> list[Digest | OSError]:
    """Return each file's sha256, or why it cannot be read, in the order given.

    Of a gigabyte or more it is said, under the title, how much is done. An exception, such as an
    interrupt, ends all reading within one chunk.
    """
    # Here, since it takes longer to import than all else that a build of nothing does.
    from concurrent.futures import ThreadPoolExecutor

    sizes_bytes = [_size_of(path) for path in paths]
    count, stop = _Count(title, sum(sizes_bytes)), Event()

    def hash_or_explain(path: Path) -> Digest | OSError:
        try:
            return _hash(path, count.add, stop)
        except OSError as error:
            return error

    largest_first = sorted(range(len(paths)), key=lambda each: -sizes_bytes[each])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            futures = {each: pool.submit(hash_or_explain, paths[each]) for each in largest_first}
            return [futures[each].result() for each in range(len(paths))]
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
            count.close()


class _Count:
    """The bytes that all threads have done."""

    def __init__(self, title: str, total_bytes: int) -> None:
        self._progress = Progress(title, total_bytes, unit="bytes")
        self._said = total_bytes >= _SAY_FROM_BYTES
        self._done_bytes = 0
        self._lock = Lock()

    def add(self, size_bytes: int) -> None:
        with self._lock:
            self._done_bytes += size_bytes
            if self._said:
                self._progress.show(self._done_bytes)

    def close(self) -> None:
        self._progress.close()


def _hash(path: Path, add: Callable[[int], None], stop: Event) -> Digest:
    digest = hashlib.sha256()
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while not stop.is_set() and (size_bytes := file.readinto(buffer)):
            digest.update(view[:size_bytes])
            add(size_bytes)
    return Digest(digest.hexdigest())


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
