"""Where an artifact came from: the one that a person means, and all that it was made from.

A manifest names each input by its key and by the digest of what that held. So a lineage goes on as
far as the store goes, and an artifact that is gone is still named by those that it went into.
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact.hashing import hash_file
from pipeline.artifact.manifest import NAME, read_files
from pipeline.artifact.rule import Digest, Key
from pipeline.artifact.store import Artifact
from pipeline.errors import UsageError
from pipeline.log import say

_DIGEST_DIGITS = 64
_KEY_START = re.compile(r"([0-9a-f]{6,64})(?:\.\.\.)?")


@dataclass(frozen=True, kw_only=True)
class Input:
    """What an artifact was made from, as its own manifest says.

    `recorded` is the digest of what the input held then; None when the manifest lacks it.
    `artifact` is the input as it lies in the store; None when it is not there, or not readable.
    """

    label: str
    key: Key
    recorded: Digest | None
    artifact: Artifact | None

    @property
    def problem(self) -> str | None:
        """What breaks the chain here, or None."""
        if self.recorded is None:
            return "its digest is not recorded"
        if self.artifact is None:
            return "not in the store, or not readable there"
        if (found := self.artifact.manifest.content_sha256) != self.recorded:
            return f"its content is {found[:12]}... now, not {self.recorded[:12]}..."
        return None


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Artifacts and all that they were made from: each once, inputs before what is made from them.

    `inputs` holds those of every artifact, by its key.
    """

    artifacts: tuple[Artifact, ...]
    inputs: Mapping[Key, tuple[Input, ...]]


def find_lineage(wanted: Sequence[Artifact], artifacts: Sequence[Artifact]) -> Lineage:
    """Return the lineage of the wanted artifacts, looked up among all artifacts of the store."""
    by_key = {artifact.key: artifact for artifact in artifacts}
    found: dict[Key, Artifact] = {}
    inputs: dict[Key, tuple[Input, ...]] = {}

    def visit(artifact: Artifact) -> None:
        if artifact.key in inputs:
            return
        inputs[artifact.key] = _list_inputs(artifact, by_key)
        for each in inputs[artifact.key]:
            if each.artifact:
                visit(each.artifact)
        found[artifact.key] = artifact

    for artifact in wanted:
        visit(artifact)
    return Lineage(artifacts=tuple(found.values()), inputs=inputs)


def _list_inputs(artifact: Artifact, by_key: Mapping[Key, Artifact]) -> tuple[Input, ...]:
    keys: Mapping[str, Key] = artifact.manifest.document["inputs"]
    return tuple(
        Input(
            label=label,
            key=key,
            recorded=artifact.manifest.inputs.get(label),
            artifact=by_key.get(key),
        )
        for label, key in sorted(keys.items())
    )


def read_statement(artifact: Artifact) -> dict[str, Any]:
    """Return the in-toto statement as it lies in the store."""
    return dict(json.loads((artifact.path / NAME).read_text(encoding="utf-8")))


def find_artifact(meant: str, artifacts: Sequence[Artifact]) -> Artifact:
    """Return the artifact that a person means; `artifacts` are all of the store, oldest first.

    That is, in this order: the one of a rule that was sealed last; a directory's name; a key, or
    six digits and more of its start; the sha256 of a file, or of an artifact's content; a path,
    be it inside an artifact, through a link or not, or of a copy anywhere.

    Raises UsageError when it is none of these, or a start that several keys have.
    """
    named = [each for each in artifacts if meant in (each.name, each.path.name)]
    if named:
        return named[-1]
    start = _KEY_START.fullmatch(meant)
    found = _find_by_digits(start[1], artifacts) if start else None
    if found is None and meant and _is_there(Path(meant)):
        found = _find_by_path(meant, artifacts)
    if found is None:
        raise _make_unknown(meant, artifacts)
    return found


def _find_by_digits(digits: str, artifacts: Sequence[Artifact]) -> Artifact | None:
    """Return the artifact whose key begins so, or that is, or holds, what has that sha256."""
    found = [each for each in artifacts if each.key.startswith(digits)]
    if len(found) > 1:
        raise UsageError(
            "several artifacts have a key that begins so",
            on=digits,
            why=", ".join(each.path.name for each in found),
            then="give one more digit, or one of these names",
        )
    if found or len(digits) < _DIGEST_DIGITS:
        return found[0] if found else None
    whole = [each for each in artifacts if each.manifest.content_sha256 == digits]
    return whole[-1] if whole else _find_by_file(Digest(digits), "", artifacts)


def _find_by_path(meant: str, artifacts: Sequence[Artifact]) -> Artifact:
    """Raises UsageError when the path is neither in an artifact nor a copy of one or its file."""
    resolved = Path(meant).resolve()
    for artifact in artifacts:
        if resolved.is_relative_to(artifact.path):
            return artifact
    if (resolved / NAME).is_file():
        # What cp -r makes of an artifact. Another directory may be anything, and of any size.
        files = read_files(resolved)
        copied = [each for each in artifacts if each.manifest.files == files]
        found, why = copied[-1] if copied else None, "it holds other bytes than every artifact"
    elif resolved.is_file():
        size_bytes = resolved.stat().st_size
        why = f"no artifact holds a file of these {size_bytes:,} bytes"
        sizes = {file.size_bytes for each in artifacts for file in each.manifest.files}
        digest = hash_file(resolved) if size_bytes in sizes else Digest("")
        found = _find_by_file(digest, Path(meant).name, artifacts)
    else:
        found, why = None, "it is neither in an artifact nor a file nor the copy of an artifact"
    if found is None:
        raise _make_unknown(meant, artifacts, why=why)
    return found


def _find_by_file(digest: Digest, name: str, artifacts: Sequence[Artifact]) -> Artifact | None:
    """Return the artifact that holds the file: by the name, when one does so; the last one."""
    holders = [
        (Path(file.path).name == name, number)
        for number, each in enumerate(artifacts)
        for file in each.manifest.files
        if file.sha256 == digest
    ]
    if not holders:
        return None
    found = artifacts[max(holders)[1]]
    others = {artifacts[number].path.name for _, number in holders} - {found.path.name}
    if others:
        say(f"{found.path.name} is taken; the same file is in {', '.join(sorted(others))}")
    return found


def _is_there(path: Path) -> bool:
    with suppress(OSError):
        return path.exists()
    return False


def _make_unknown(meant: str, artifacts: Sequence[Artifact], *, why: str = "") -> UsageError:
    names = sorted({each.name for each in artifacts})
    longer = [name for name in names if meant and name.startswith(meant)]
    close = longer or difflib.get_close_matches(meant, names, n=1)
    there = f"the store holds {', '.join(names)}" if names else "the store is empty"
    guess = f"; did you mean {' or '.join(close)}?" if close else ""
    return UsageError(
        "no artifact is meant by this",
        on=meant,
        why=f"{why or 'it is no name, key or path of one'}; {there}{guess}",
        then="`python -m pipeline show` lists what there is",
    )
