"""Sealing: what a stage wrote becomes an artifact, whole or not at all.

Hash, write the manifest, put all of it on the disk, then one rename, then the parent directory. A
crash, a kill or a power cut before the rename leaves a work directory that is swept; after it, a
whole artifact. `POINTS` names every state of the disk in between.
"""

import datetime
import hashlib
import json
import os
import stat
from dataclasses import replace
from pathlib import Path

from pipeline.artifact.manifest import NAME, Manifest, make_statement, read_files
from pipeline.artifact.publish import sync
from pipeline.artifact.rule import Key
from pipeline.artifact.store import Artifact, Store
from pipeline.errors import StageError
from pipeline.log import say

POINTS = (
    "output made",
    "output hashed",
    "manifest written",
    "files synced",
    "directories synced",
    "renamed",
    "made read-only",
    "parent synced",
    "sidecar written",
)


def reach(point: str) -> None:
    """Do nothing: a test replaces this to end the process at each of `POINTS`."""


def seal(
    store: Store, out: Path, *, key: Key, name: str, manifest: Manifest, seconds: float
) -> Artifact:
    """Publish the directory `out` as the key's artifact; return that.

    `manifest` says everything but the files. When another process, which a file system without
    working locks let in, has published the key, that stays and `out` is left where it is.

    Raises StageError when `out` is empty or holds what is not a plain file.
    """
    reach("output made")
    _require_plain_files(out, name)
    sealed = replace(manifest, files=read_files(out, title=f"{name}: hash"))
    reach("output hashed")
    text = (json.dumps(make_statement(sealed), indent=1) + "\n").encode()
    (out / NAME).write_bytes(text)
    reach("manifest written")
    _sync_and_protect(out)
    path = store.path_of(key, name)
    try:
        out.rename(path)
    except OSError:
        if (there := store.find(key, name)) is None:
            raise
        say(f"{name}: another process sealed it meanwhile; that one is used")
        return there
    reach("renamed")
    for directory, _, _ in os.walk(path):
        Path(directory).chmod(0o555)
    reach("made read-only")
    sync(store.root)
    reach("parent synced")
    store.write_sidecar(
        key,
        name,
        {
            "seconds": round(seconds, 3),
            "sealed_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
            "manifest_sha256": hashlib.sha256(text).hexdigest(),
        },
    )
    reach("sidecar written")
    found = store.find(key, name)
    assert found is not None
    return found


def _require_plain_files(out: Path, name: str) -> None:
    entries = sorted(out.rglob("*"))
    odd = [path for path in entries if not _is_plain(path)]
    if odd:
        on, why = str(odd[0].relative_to(out)), "only plain files can be sealed"
    elif not any(path.is_file() for path in entries):
        on, why = "its output directory", "it wrote no file"
    elif (out / NAME).exists():
        on, why = NAME, "that name is the manifest's"
    else:
        return
    raise StageError(
        f"the stage of {name} made no artifact",
        on=on,
        why=why,
        then="this is a defect of the stage; see its log",
    )


def _is_plain(path: Path) -> bool:
    mode = path.lstat().st_mode
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


def _sync_and_protect(out: Path) -> None:
    """Put every file and then every directory on the disk."""
    directories = []
    for directory, _, names in os.walk(out, topdown=False):
        directories.append(Path(directory))
        for each in names:
            path = Path(directory, each)
            path.chmod(0o444)
            sync(path)
    reach("files synced")
    for path in directories:
        sync(path)
    reach("directories synced")
