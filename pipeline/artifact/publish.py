"""A file or directory that another process may trust: whole on the disk before it has its name."""

import os
from pathlib import Path


def publish(unfinished: Path, path: Path) -> None:
    """Give what is written its name, after all of its bytes are on the disk.

    A kill or a power cut leaves the name to the whole or to nothing. Of a directory, everything
    below it is synced; an existing directory of the name is not replaced (OSError).
    """
    for directory, _, names in os.walk(unfinished, topdown=False):
        for each in names:
            sync(Path(directory, each))
        sync(Path(directory))
    if not unfinished.is_dir():
        sync(unfinished)
    unfinished.rename(path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Put a file or a directory on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
