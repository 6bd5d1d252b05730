"""Work directories: what is being made, in the dark, on the store's file system.

Each is locked by its maker, so that whatever is not locked belongs to a dead process and is swept.
Its name holds the host's: a lock of another host may not be seen here, so only its own host (or
`gc`, after a week) removes it.
"""

import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.artifact.file_lock import is_at, is_free, try_lock

_ABANDONED_S = 7 * 24 * 3600


@contextmanager
def make_workspace(root: Path, title: str) -> Iterator[Path]:
    """Yield an empty directory below `root`; gone afterwards, whatever happens."""
    root.mkdir(parents=True, exist_ok=True)
    path, descriptor = _make_locked(root, title)
    try:
        yield path
    finally:
        remove_tree(path)
        os.close(descriptor)


def find_abandoned(root: Path) -> list[Path]:
    """Return the work directories whose makers are dead."""
    return [path for path in sorted(root.glob("*")) if _is_abandoned(path)]


def sweep(root: Path) -> None:
    """Remove the work directories whose makers are dead."""
    for path in find_abandoned(root):
        remove_tree(path)


def remove_tree(path: Path) -> None:
    """Remove a directory, read-only parts included; no error when it does not exist."""
    for directory, _, _ in os.walk(path):
        Path(directory).chmod(0o755)
    shutil.rmtree(path, ignore_errors=True)


def _make_locked(root: Path, title: str) -> tuple[Path, int]:
    """Return a new directory and its locked descriptor; a sweep between the two begins it anew."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=f"{title}.{_read_host()}.", dir=root))
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if try_lock(descriptor) and is_at(descriptor, path):
            return path, descriptor
        os.close(descriptor)


def _is_abandoned(path: Path) -> bool:
    if not is_free(path):
        return False
    if path.name.split(".")[-2:-1] == [_read_host()]:
        return True
    return time.time() - path.lstat().st_mtime > _ABANDONED_S


def _read_host() -> str:
    return re.sub(r"\W", "-", socket.gethostname()) or "host"
