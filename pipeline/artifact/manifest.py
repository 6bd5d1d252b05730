"""manifest.json: what an artifact holds and how it came to be.

An in-toto statement (v1) whose subjects are the artifact's files, each with sha256 and size, and
whose predicate is SLSA provenance (v1): the key document, the documents behind the digests in it
(environment, source), the inputs with the digests of their content, and the engine. No times and
no paths of a machine: those lie in the store's sidecar.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.artifact.hashing import hash_files
from pipeline.artifact.rule import Digest, Key

NAME = "manifest.json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:tristill:stage:v1"
_ENGINE = "urn:tristill:engine:"


@dataclass(frozen=True, kw_only=True)
class File:
    path: str
    size_bytes: int
    sha256: Digest


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """`document` is the key document. `environment` and `source` are what its two digests of the
    same names are of. `inputs` holds the content digest of each input, by label."""

    files: tuple[File, ...]
    document: Mapping[str, Any]
    environment: Mapping[str, Any]
    source: Mapping[str, Digest]
    inputs: Mapping[str, Digest]
    engine: str

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    @property
    def sha256(self) -> Digest:
        """The file's own digest when there is one file; else that of the directory."""
        return self.files[0].sha256 if len(self.files) == 1 else self.content_sha256

    @property
    def content_sha256(self) -> Digest:
        """The digest of `sha256sum`'s listing of all files in the order of their paths (LC_ALL=C),
        which in-toto calls dirHash."""
        listing = "".join(f"{file.sha256}  {file.path}\n" for file in self.files)
        return Digest(hashlib.sha256(listing.encode()).hexdigest())


def read_files(directory: Path, *, title: str = "hash") -> tuple[File, ...]:
    """Return every regular file below the directory, hashed, by path; the manifest left out."""
    paths = {
        path.relative_to(directory).as_posix(): path
        for path in directory.rglob("*")
        if path.is_file() and path != directory / NAME
    }
    names = sorted(paths)
    digests = hash_files([paths[name] for name in names], title=title)
    files = []
    for name, digest in zip(names, digests, strict=True):
        if isinstance(digest, OSError):
            raise digest
        files.append(File(path=name, size_bytes=paths[name].stat().st_size, sha256=digest))
    return tuple(files)


def make_statement(manifest: Manifest) -> dict[str, Any]:
    """Return the in-toto statement that manifest.json holds."""
    document = manifest.document
    keys: Mapping[str, Key] = document["inputs"]
    return {
        "_type": STATEMENT_TYPE,
        "subject": [
            {
                "name": file.path,
                "digest": {"sha256": file.sha256},
                "annotations": {"size": file.size_bytes},
            }
            for file in manifest.files
        ],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": document["options"],
                "internalParameters": {
                    "key_document": document,
                    "environment": manifest.environment,
                    "source": manifest.source,
                },
                "resolvedDependencies": [
                    {
                        "name": label,
                        "uri": f"urn:tristill:artifact:{keys[label]}",
                        "digest": {"dirHash": digest},
                    }
                    for label, digest in sorted(manifest.inputs.items())
                ],
            },
            "runDetails": {
                "builder": {
                    "id": f"{_ENGINE}{manifest.engine}",
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
    definition = statement["predicate"]["buildDefinition"]
    parameters = definition["internalParameters"]
    document = parameters["key_document"]
    if not (isinstance(document["stage"], str) and isinstance(document["options"], dict)):
        raise TypeError("its key document names no stage or no options")
    if not all(isinstance(key, str) for key in document["inputs"].values()):
        raise TypeError("its key document names inputs without keys")
    return Manifest(
        files=tuple(
            File(
                path=subject["name"],
                size_bytes=subject["annotations"]["size"],
                sha256=Digest(subject["digest"]["sha256"]),
            )
            for subject in statement["subject"]
        ),
        document=document,
        environment=parameters["environment"],
        source=parameters["source"],
        inputs={
            each["name"]: Digest(each["digest"]["dirHash"])
            for each in definition["resolvedDependencies"]
        },
        engine=statement["predicate"]["runDetails"]["builder"]["id"].removeprefix(_ENGINE),
    )
