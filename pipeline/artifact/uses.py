"""Who needs which artifacts right now, so that `gc` takes nothing away from under a reader.

A user of artifacts notes their directories in a file below `.uses/` and keeps that locked while it
runs; a file that nobody locks is a dead process's. Users enter, and `gc` acts, under one lock.
"""

import json
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.artifact.file_lock import file_lock, is_free, try_lock
from pipeline.artifact.store import Store
from pipeline.artifact.writability import find_obstacle


@contextmanager
def using(store: Store, directories: Collection[str]) -> Iterator[None]:
    """Keep the artifacts of these directories' names in the store until the end.

    They need not be sealed yet. A store that is read-only here is left alone.
    """
    uses = store.root / ".uses"
    if find_obstacle(uses) is not None:
        yield
        return
    with file_lock(_entrance(store), waiting_for="room in the store"):
        descriptor, name = tempfile.mkstemp(dir=uses, suffix=".json")
        try_lock(descriptor)
        os.write(descriptor, json.dumps(sorted(directories)).encode())
    try:
        yield
    finally:
        Path(name).unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def reading_uses(store: Store) -> Iterator[set[str]]:
    """Yield the names of all directories in use; nobody new begins to use one meanwhile."""
    with file_lock(_entrance(store), waiting_for="room in the store"):
        used: set[str] = set()
        for path in (store.root / ".uses").glob("*.json"):
            if is_free(path):
                path.unlink(missing_ok=True)
            else:
                used |= _read(path)
        yield used


def _entrance(store: Store) -> Path:
    return store.root / ".locks" / "uses"


def _read(path: Path) -> set[str]:
    try:
        return set(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return set()
