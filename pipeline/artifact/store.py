"""The store: content-addressed, sealed, never edited.

`<key>-<rule>/` holds an artifact and its manifest.json; only a rename creates one, so what has
that name is whole. A hit costs one manifest and a stat per file; hashing belongs to `verify`.
Beside the artifacts lie

    .tmp/         what is being made (workspace.py)
    .work/        what a killed stage goes on from (work_area.py)
    .locks/       one kernel lock per key: who makes it
    .uses/        what running builds and readers need: `gc` leaves that alone (uses.py)
    .logs/        the sidecar: a stage's talk, what it reported for people, and when and how fast an
                  artifact was sealed
    .quarantine/  what `verify` found damaged (quarantine.py)
    .rebuilt/     what `rebuild` made otherwise
"""

import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact.file_lock import file_lock
from pipeline.artifact.key import make_canonical_json
from pipeline.artifact.manifest import NAME, Manifest, parse_statement
from pipeline.artifact.rule import Digest, Key
from pipeline.errors import StoreError, UsageError


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A sealed artifact: where it lies and what its manifest says."""

    name: str
    key: Key
    path: Path
    manifest: Manifest
    seconds: float | None = None
    sealed_at: str | None = None
    manifest_sha256: Digest | None = None


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A file (`path`) of an artifact (its directory's name) that is not what it was sealed as."""

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

    def report_path(self, key: Key, name: str) -> Path:
        """Return where a page about an artifact lies that says what no sealed byte may: times."""
        return self.root / ".logs" / f"{key}-{name}.html"

    def reports_path(self, key: Key, name: str) -> Path:
        """Return the directory of what a stage has written for other tools to show."""
        return self.root / ".logs" / f"{key}-{name}.reports"

    @property
    def out(self) -> Path:
        """Where the links of each recipe lie."""
        return self.root.parent / "out"

    @property
    def workspaces(self) -> Path:
        return self.root / ".tmp"

    @property
    def work_areas(self) -> Path:
        return self.root / ".work"

    def lock_path(self, key: Key) -> Path:
        return self.root / ".locks" / key

    def lock(self, key: Key, name: str) -> AbstractContextManager[None]:
        return file_lock(self.lock_path(key), waiting_for=name)

    def find(self, key: Key, name: str) -> Artifact | None:
        """Return the sealed artifact, or None when it does not exist.

        Raises StoreError when its manifest cannot be read or a file's size differs from it.
        """
        path = self.path_of(key, name)
        if not path.is_dir():
            return None
        artifact = self._read(path, key, name)
        if damage := find_misfits(artifact):
            raise _damaged(path, f"{damage[0].path}: {damage[0].what}")
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
                    if path.is_dir():
                        unreadable.append(Damage(artifact=path.name, path=NAME, what=error.why))
        found.sort(key=lambda artifact: (artifact.sealed_at or "", artifact.name))
        return found, unreadable

    def _read(self, path: Path, key: Key, name: str) -> Artifact:
        try:
            manifest = parse_statement((path / NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise _damaged(path, f"its manifest cannot be read: {error}") from error
        sidecar = self._read_sidecar(key, name)
        return Artifact(name=name, key=key, path=path, manifest=manifest, **sidecar)

    def _read_sidecar(self, key: Key, name: str) -> dict[str, Any]:
        try:
            noted = json.loads(self._sidecar_path(key, name).read_text(encoding="utf-8"))
            return {
                "seconds": float(noted["seconds"]),
                "sealed_at": str(noted["sealed_at"]),
                "manifest_sha256": Digest(noted["manifest_sha256"]),
            }
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def write_sidecar(self, key: Key, name: str, noted: Mapping[str, Any]) -> None:
        """Note what stands in no manifest: the fields of an Artifact that `_read_sidecar` reads."""
        path = self._sidecar_path(key, name)
        path.parent.mkdir(exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(make_canonical_json(noted))
        partial.replace(path)

    def _sidecar_path(self, key: Key, name: str) -> Path:
        return self.root / ".logs" / f"{key}-{name}.json"


def find_misfits(artifact: Artifact) -> list[Damage]:
    """Return the files that are missing or have another size than their manifest says."""
    found = []
    for file in artifact.manifest.files:
        try:
            size_bytes = (artifact.path / file.path).stat().st_size
        except OSError as error:
            what = "missing" if isinstance(error, FileNotFoundError) else str(error.strerror)
        else:
            if size_bytes == file.size_bytes:
                continue
            what = f"{size_bytes} bytes, not {file.size_bytes}"
        found.append(Damage(artifact=artifact.path.name, path=file.path, what=what))
    return found


def open_store(root: Path) -> Store:
    """Return the store in the directory, made when missing; it may be a read-only one.

    Raises UsageError when there is none and none can be made.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            "the store cannot be written",
            on=str(root),
            why=error.strerror or str(error),
            then="name another directory with --store DIR, or mend its permissions",
        ) from error
    # Stages run in a directory of their own, where a relative path would lead elsewhere.
    return Store(root.resolve())


def _damaged(path: Path, why: str) -> StoreError:
    return StoreError(
        "an artifact in the store is damaged",
        on=str(path),
        why=why,
        then=f"`python -m pipeline verify {path.name.partition('-')[2]}` moves it to quarantine;"
        " then the same command builds it again",
    )
