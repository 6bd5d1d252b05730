"""What the store holds, and the tree of what an artifact was made from, for `show`."""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.artifact.provenance import Input, Lineage
from pipeline.artifact.store import Artifact
from pipeline.report.table import (
    align,
    format_age,
    format_bytes,
    format_seconds,
    format_table,
    shorten_digest,
)

_Row = tuple[str, ...]


def make_show(artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """Return what the artifacts are.

    `inputs` are keys by label, `input_contents` the digests of what these held, by label. `sha256`
    is that of the only file, or else `content_sha256`, which is in-toto's dirHash of all files.
    """
    return {"artifacts": [describe_artifact(artifact) for artifact in artifacts]}


def describe_artifact(artifact: Artifact) -> dict[str, Any]:
    """Return what `show --json` says of one artifact."""
    manifest = artifact.manifest
    return {
        "name": artifact.name,
        "key": artifact.key,
        "path": str(artifact.path),
        "bytes": manifest.size_bytes,
        "sealed": artifact.sealed_at,
        "seconds": artifact.seconds,
        "sha256": manifest.sha256,
        "content_sha256": manifest.content_sha256,
        "files": [vars(file) for file in manifest.files],
        "inputs": manifest.document["inputs"],
        "input_contents": manifest.inputs,
    }


def format_show(document: Mapping[str, Any], now: datetime.datetime) -> str:
    """Return the store's content as a table and a line with the sum."""
    artifacts = document["artifacts"]
    rows = [
        (
            each["name"],
            format_bytes(each["bytes"]),
            format_age(each["sealed"], now),
            shorten_digest(each["key"]),
            each["path"],
        )
        for each in artifacts
    ]
    total_bytes = sum(each["bytes"] for each in artifacts)
    plural = "" if len(artifacts) == 1 else "s"
    return (
        format_table(("artifact", "bytes", "sealed", "key", "path"), rows)
        + f"\n{len(artifacts)} artifact{plural}, {format_bytes(total_bytes)} bytes\n"
    )


def make_lineage(wanted: Sequence[Artifact], lineage: Lineage) -> dict[str, Any]:
    """Return the wanted artifacts' keys; every artifact of the lineage as in `make_show`, inputs
    before what is made from them; and the inputs that break the chain, with why."""
    return {
        "wanted": [artifact.key for artifact in wanted],
        **make_show(lineage.artifacts),
        "problems": make_problems(lineage),
    }


def make_problems(lineage: Lineage) -> list[dict[str, Any]]:
    """Return each input that is not in the store as its consumer's manifest has it."""
    return [
        {
            "artifact": artifact.name,
            "artifact_key": artifact.key,
            "input": each.label,
            "input_key": each.key,
            "recorded": each.recorded,
            "found": each.artifact.manifest.content_sha256 if each.artifact else None,
            "what": each.problem,
        }
        for artifact in lineage.artifacts
        for each in lineage.inputs[artifact.key]
        if each.problem
    ]


def format_lineage(wanted: Sequence[Artifact], lineage: Lineage, now: datetime.datetime) -> str:
    """Return a tree per wanted artifact: what it was made from, what that was made from, ...

    What stands in a tree twice is written out once and then marked.
    """
    trees = []
    for artifact in wanted:
        rows = [_make_row(artifact, artifact.name, now)]
        rows += _list_rows(artifact, lineage, now, indent="", seen={artifact.key})
        trees.append("\n".join(align(rows, right={1, 2, 3})) + "\n")
    return "\n".join(trees)


def _list_rows(
    artifact: Artifact, lineage: Lineage, now: datetime.datetime, *, indent: str, seen: set[str]
) -> Iterator[_Row]:
    inputs = lineage.inputs[artifact.key]
    for each in inputs:
        branch, below = ("└─ ", "   ") if each is inputs[-1] else ("├─ ", "│  ")
        if each.artifact is None:
            yield _make_absent_row(each, indent + branch)
            continue
        row = _make_row(each.artifact, f"{indent}{branch}{each.artifact.name}", now)
        notes = [each.problem] if each.problem else []
        again = each.key in seen
        seen.add(each.key)
        yield (*row[:-1], ", ".join([*notes, *(["(above)"] if again else [])]))
        if not again:
            yield from _list_rows(each.artifact, lineage, now, indent=indent + below, seen=seen)


def _make_row(artifact: Artifact, title: str, now: datetime.datetime) -> _Row:
    return (
        title,
        f"{format_bytes(artifact.manifest.size_bytes)} bytes",
        format_age(artifact.sealed_at, now),
        f"{format_seconds(artifact.seconds)} s" if artifact.seconds is not None else "-",
        shorten_digest(artifact.key),
        "",
    )


def _make_absent_row(absent: Input, branch: str) -> _Row:
    content = f"; it held {shorten_digest(absent.recorded)}" if absent.recorded else ""
    title = f"{branch}{absent.label}"
    return (title, "-", "-", "-", shorten_digest(absent.key), f"{absent.problem}{content}")
