"""A kernel lock on a file: it goes when its holder goes, however that dies."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.log import say

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextmanager
def file_lock(path: Path, *, waiting_for: str) -> Iterator[None]:
    """Hold the lock; say whom we wait for when another process has it."""
    descriptor = _open_locked(path, waiting_for)
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _open_locked(path: Path, waiting_for: str) -> int:
    """Return the lock file's descriptor, locked; opened again while another process removes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            if not try_lock(descriptor):
                holder = os.pread(descriptor, 32, 0).decode() or "another process"
                say(f"waiting for process {holder}, which makes {waiting_for}")
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def try_lock(descriptor: int) -> bool:
    """Lock an open file or directory if no other process has; return whether it is ours now.

    A file system that knows no locks gives one to everybody.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def is_at(descriptor: int, path: Path) -> bool:
    """Return whether the open file is still the one at the path."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def is_held(path: Path) -> bool:
    """Return whether a process, this one it may be, holds the lock of a file that is there.

    Of a file system whose locks do nothing the answer is False.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


def is_free(path: Path) -> bool:
    """Return whether no process holds the lock of a file or directory.

    A file system whose locks do nothing would say so of every file: then the answer is False.
    """
    first = second = -1
    try:
        first = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        second = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        return try_lock(first) and not try_lock(second)
    except FileNotFoundError:
        return False
    finally:
        for descriptor in (first, second):
            if descriptor >= 0:
                os.close(descriptor)
