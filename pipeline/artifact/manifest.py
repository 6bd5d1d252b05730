"""manifest.json: what an artifact holds and how it came to be.

An in-toto statement (v1) whose subjects are the artifact's files, each with sha256 and size, and
whose predicate is SLSA provenance (v1): the key document, the inputs and the engine. No times and
no paths of a machine: those lie in the store's sidecar.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.artifact.rule import Digest, Key

NAME = "manifest.json"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class File:
    path: str
    size_bytes: int
    sha256: Digest


@dataclass(frozen=True, kw_only=True)
class Manifest:
    files: tuple[File, ...]
    document: Mapping[str, Any]

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def sha256(self) -> Digest:
        """The file's own digest when there is one file; else the digest of `sha256sum`'s listing
        of all files in the order of their paths (LC_ALL=C)."""
        if len(self.files) == 1:
            return self.files[0].sha256
        listing = "".join(f"{file.sha256}  {file.path}\n" for file in self.files)
        return Digest(hashlib.sha256(listing.encode()).hexdigest())


def hash_file(path: Path) -> Digest:
    """Return the sha256 of the file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return Digest(digest.hexdigest())


def read_files(directory: Path) -> tuple[File, ...]:
    """Return every regular file below the directory, hashed, by path; the manifest left out."""
    paths = sorted(
        (path.relative_to(directory).as_posix(), path)
        for path in directory.rglob("*")
        if path.is_file() and path != directory / NAME
    )
    return tuple(
        File(path=name, size_bytes=path.stat().st_size, sha256=hash_file(path))
        for name, path in paths
    )


def make_statement(manifest: Manifest, *, engine: str) -> dict[str, Any]:
    """Return the in-toto statement that manifest.json holds."""
    inputs: Mapping[str, Key] = manifest.document["inputs"]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {
                "name": file.path,
                "digest": {"sha256": file.sha256},
                "annotations": {"size": file.size_bytes},
            }
            for file in manifest.files
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:tristill:stage:v1",
                "externalParameters": manifest.document["options"],
                "internalParameters": {"key_document": manifest.document},
                "resolvedDependencies": [
                    {"name": label, "uri": f"urn:tristill:artifact:{key}"}
                    for label, key in sorted(inputs.items())
                ],
            },
            "runDetails": {
                "builder": {
                    "id": f"urn:tristill:engine:{engine}",
                    "version": {"tristill": __version__},
                }
            },
        },
    }


def parse_statement(text: str) -> Manifest:
    """Return the manifest that a statement holds.

    Raises ValueError, KeyError or TypeError for what is no statement.
    """
    statement = json.loads(text)
    files = tuple(
        File(
            path=subject["name"],
            size_bytes=subject["annotations"]["size"],
            sha256=Digest(subject["digest"]["sha256"]),
        )
        for subject in statement["subject"]
    )
    parameters = statement["predicate"]["buildDefinition"]["internalParameters"]
    return Manifest(files=files, document=parameters["key_document"])
