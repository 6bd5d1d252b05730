"""sha256 of many files at once: one thread per processor, since hashlib lets go of Python's lock.

One file is one stream, so that the largest starts first.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event, Lock

from pipeline.artifact.rule import Digest

_CHUNK_BYTES = 1 << 20


def hash_file(path: Path) -> Digest:
    """Return the sha256 of the file's bytes."""
    return _hash(path, lambda size_bytes: None, Event())


def hash_files(
    paths: Sequence[Path], *, on_bytes: Callable[[int], None] = lambda done_bytes: None
) -> list[Digest | OSError]:
    """Return each file's sha256, or why it cannot be read, in the order given.

    `on_bytes` is told how many bytes are done, all files together, from one thread at a time. An
    exception, such as an interrupt, ends all reading within one chunk.
    """
    # Here, since it takes longer to import than all else that a build of nothing does.
    from concurrent.futures import ThreadPoolExecutor

    stop, counting, done_bytes = Event(), Lock(), 0

    def count(size_bytes: int) -> None:
        nonlocal done_bytes
        with counting:
            done_bytes += size_bytes
            on_bytes(done_bytes)

    def hash_or_explain(path: Path) -> Digest | OSError:
        try:
            return _hash(path, count, stop)
        except OSError as error:
            return error

    largest_first = sorted(range(len(paths)), key=lambda each: -_size_of(paths[each]))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            futures = {each: pool.submit(hash_or_explain, paths[each]) for each in largest_first}
            return [futures[each].result() for each in range(len(paths))]
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)


def _hash(path: Path, count: Callable[[int], None], stop: Event) -> Digest:
    digest = hashlib.sha256()
    buffer = bytearray(_CHUNK_BYTES)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while not stop.is_set() and (size_bytes := file.readinto(buffer)):
            digest.update(view[:size_bytes])
            count(size_bytes)
    return Digest(digest.hexdigest())


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
