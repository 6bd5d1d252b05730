"""The store: content-addressed, sealed, never edited.

`<key>-<rule>/` holds an artifact and its manifest.json; only a rename creates one, so what has
that name is whole. `.tmp/` holds what is being made, `.locks/` kernel locks, `.logs/` the sidecar
(talk, times). A hit costs one manifest and a stat per file; hashing belongs to `verify`.
"""

import datetime
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact.file_lock import file_lock
from pipeline.artifact.key import make_canonical_json
from pipeline.artifact.manifest import (
    NAME,
    Manifest,
    hash_file,
    make_statement,
    parse_statement,
    read_files,
)
from pipeline.artifact.rule import Key
from pipeline.errors import StageError, StoreError, UsageError


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A sealed artifact: where it lies and what its manifest says."""

    name: str
    key: Key
    path: Path
    manifest: Manifest
    seconds: float | None
    sealed_at: str | None


@dataclass(frozen=True, kw_only=True)
class Damage:
    artifact: str
    path: str
    what: str


@dataclass(frozen=True)
class Store:
    """The directory that holds every artifact. Paths only; the state is on the disk."""

    root: Path

    def path_of(self, key: Key, name: str) -> Path:
        return self.root / f"{key}-{name}"

    def log_path(self, key: Key, name: str) -> Path:
        return self.root / ".logs" / f"{key}-{name}.log"

    def lock(self, key: Key, name: str) -> AbstractContextManager[None]:
        return file_lock(self.root / ".locks" / key, waiting_for=name)

    def find(self, key: Key, name: str) -> Artifact | None:
        """Return the sealed artifact, or None when it does not exist.

        Raises StoreError when its manifest cannot be read or a file's size differs from it.
        """
        path = self.path_of(key, name)
        if not path.is_dir():
            return None
        artifact = self._read(path, key, name)
        damage = find_damage(artifact, deep=False)
        if damage:
            raise _damaged(artifact.path, f"{damage[0].path}: {damage[0].what}")
        return artifact

    def read_all(self) -> tuple[list[Artifact], list[Damage]]:
        """Return every sealed artifact, the oldest first, and the manifests that cannot be read."""
        found, unreadable = [], []
        for path in sorted(self.root.glob("*-*")):
            key, _, name = path.name.partition("-")
            if len(key) == 64 and path.is_dir():
                try:
                    found.append(self._read(path, Key(key), name))
                except StoreError as error:
                    unreadable.append(Damage(artifact=path.name, path=NAME, what=error.why))
        found.sort(key=lambda artifact: (artifact.sealed_at or "", artifact.name))
        return found, unreadable

    def _read(self, path: Path, key: Key, name: str) -> Artifact:
        try:
            manifest = parse_statement((path / NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path, f"its manifest cannot be read: {error}") from error
        times = self._read_times(key, name)
        return Artifact(name=name, key=key, path=path, manifest=manifest, **times)

    def _read_times(self, key: Key, name: str) -> dict[str, Any]:
        try:
            times = json.loads(self._times_path(key, name).read_text(encoding="utf-8"))
            return {"seconds": float(times["seconds"]), "sealed_at": str(times["sealed_at"])}
        except (OSError, ValueError, KeyError, TypeError):
            return {"seconds": None, "sealed_at": None}

    def _times_path(self, key: Key, name: str) -> Path:
        return self.root / ".logs" / f"{key}-{name}.json"

    @contextmanager
    def workspace(self, key: Key, name: str) -> Iterator[Path]:
        """Yield an empty directory on the store's file system; gone afterwards, whatever happens.

        The caller holds the key's lock, so leftovers of this key belong to a dead process.
        """
        temporary = self.root / ".tmp"
        temporary.mkdir(parents=True, exist_ok=True)
        for leftover in temporary.glob(f"{key[:16]}-*"):
            remove_tree(leftover)
        path = Path(tempfile.mkdtemp(prefix=f"{key[:16]}-{name}.", dir=temporary))
        try:
            yield path
        finally:
            remove_tree(path)

    def seal(
        self,
        out: Path,
        *,
        key: Key,
        name: str,
        document: dict[str, Any],
        engine: str,
        seconds: float,
    ) -> Artifact:
        """Hash, write the manifest, sync, publish by rename, make read-only.

        Raises StageError when `out` is empty or holds what is not a plain file.
        """
        _check_output(out, name)
        manifest = Manifest(files=read_files(out), document=document)
        statement = make_statement(manifest, engine=engine)
        (out / NAME).write_text(json.dumps(statement, indent=1) + "\n", encoding="utf-8")
        for directory, _, names in os.walk(out, topdown=False):
            for each in names:
                path = Path(directory, each)
                _sync(path)
                path.chmod(0o444)
            _sync(Path(directory))
        self._write_times(key, name, seconds)
        path = self.path_of(key, name)
        out.rename(path)
        for directory, _, _ in os.walk(path):
            Path(directory).chmod(0o555)
        _sync(self.root)
        return self._read(path, key, name)

    def _write_times(self, key: Key, name: str, seconds: float) -> None:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        path = self._times_path(key, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make_canonical_json({"seconds": round(seconds, 3), "sealed_at": now}))


def find_damage(artifact: Artifact, *, deep: bool) -> list[Damage]:
    """Return how the files differ from the manifest: by size, or (deep) by every byte."""

    def damage(path: str, what: str) -> Damage:
        return Damage(artifact=artifact.path.name, path=path, what=what)

    found = []
    for file in artifact.manifest.files:
        path = artifact.path / file.path
        if not path.is_file():
            found.append(damage(file.path, "missing"))
        elif path.stat().st_size != file.size_bytes:
            found.append(damage(file.path, f"{path.stat().st_size} bytes, not {file.size_bytes}"))
        elif deep and hash_file(path) != file.sha256:
            found.append(damage(file.path, "its sha256 differs from the manifest's"))
    if deep:
        known = {file.path for file in artifact.manifest.files} | {NAME}
        present = {
            path.relative_to(artifact.path).as_posix()
            for path in artifact.path.rglob("*")
            if not path.is_dir()
        }
        found += [damage(path, "not in the manifest") for path in sorted(present - known)]
    return found


def open_store(root: Path) -> Store:
    """Return the store in the directory, made when missing.

    Raises UsageError when it cannot be written.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise UsageError(
            "the store cannot be written",
            on=str(root),
            why=error.strerror or str(error),
            then="name another directory with --store DIR, or mend its permissions",
        ) from error
    # Stages run in a directory of their own, where a relative path would lead elsewhere.
    return Store(root.resolve())


def remove_tree(path: Path) -> None:
    """Remove a directory, read-only parts included; no error when it does not exist."""
    for directory, _, _ in os.walk(path):
        Path(directory).chmod(0o755)
    shutil.rmtree(path, ignore_errors=True)


def _check_output(out: Path, name: str) -> None:
    entries = list(out.rglob("*"))
    odd = [path for path in entries if not (stat.S_ISREG(path.lstat().st_mode) or path.is_dir())]
    odd += [path for path in entries if path.is_symlink() and path not in odd]
    if odd or not any(path.is_file() for path in entries):
        raise StageError(
            f"the stage of {name} made no artifact",
            on=str(odd[0].relative_to(out)) if odd else "its output directory",
            why="only plain files can be sealed" if odd else "it wrote no file",
            then="this is a defect of the stage; see its log",
        )


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damaged(path: Path, why: str) -> StoreError:
    return StoreError(
        "an artifact in the store is damaged",
        on=str(path),
        why=why,
        then="run `python -m pipeline verify`, move that directory away, and build again",
    )
