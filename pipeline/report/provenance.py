"""What a reviewer needs of an artifact and all that it was made from: `show --provenance`."""

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifact.provenance import Lineage
from pipeline.artifact.store import Artifact
from pipeline.engine.image import IMAGES
from pipeline.report.show import describe_artifact, make_lineage
from pipeline.report.table import align, format_age, format_bytes, format_seconds, shorten_path

_Lines = Iterator[str]


def make_provenance(
    wanted: Sequence[Artifact], lineage: Lineage, statements: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the provenance of the wanted artifacts, `statements` being those of the lineage's.

    wanted        their keys
    consistent    whether every input's digest that a manifest records is that of what lies in the
                  store under the input's key; it says nothing of bytes, which `verify` hashes
    problems      each input of which that is not so, or that is not in the store:
                  {artifact, artifact_key, input, input_key, recorded, found, what}
    artifacts     each artifact once, inputs before what is made from them: as in `show --json`, and
                  {engine, versions, stage, image, environment, source, options}; `environment` and
                  `source` are digests, `image` is null when no image of today has these locks
    environments  by digest: everything that pins the image (accelerator, locks, llama, python, ...)
    sources       [{path, sha256, stages}]: each source file that a stage ran
    statements    the in-toto statements (v1, with SLSA provenance v1) in the order of `artifacts`
    """
    described = make_lineage(wanted, lineage)
    return {
        "wanted": described["wanted"],
        "consistent": not described["problems"],
        "problems": described["problems"],
        "artifacts": [
            describe_artifact(artifact) | _describe_making(artifact, statement)
            for artifact, statement in zip(lineage.artifacts, statements, strict=True)
        ],
        "environments": {
            each.manifest.document["environment"]: each.manifest.environment
            for each in lineage.artifacts
        },
        "sources": _list_sources(lineage.artifacts),
        "statements": list(statements),
    }


def _describe_making(artifact: Artifact, statement: Mapping[str, Any]) -> dict[str, Any]:
    manifest = artifact.manifest
    return {
        "engine": manifest.engine,
        "versions": statement["predicate"]["runDetails"]["builder"].get("version", {}),
        "stage": manifest.document["stage"],
        "image": _find_image(manifest.environment),
        "environment": manifest.document["environment"],
        "source": manifest.document["source"],
        "options": manifest.document["options"],
    }


def _find_image(environment: Mapping[str, Any]) -> str | None:
    """Return the name of the image; a manifest has none, but no two images have the same locks."""
    locks = set(environment.get("locks", ()))
    return next((image.name for image in IMAGES.values() if set(image.locks) == locks), None)


def _list_sources(artifacts: Sequence[Artifact]) -> list[dict[str, Any]]:
    stages: dict[tuple[str, str], set[str]] = {}
    for artifact in artifacts:
        for file in artifact.manifest.source.items():
            stages.setdefault(file, set()).add(artifact.manifest.document["stage"])
    return [
        {"path": path, "sha256": sha256, "stages": sorted(stages[path, sha256])}
        for path, sha256 in sorted(stages)
    ]


def format_provenance(document: Mapping[str, Any], now: datetime.datetime) -> str:
    """Return the provenance as text: the wanted artifacts, what these were made from, and so on;
    each image and each source file once; and whether the chain is consistent."""
    sections = [_format_artifact(each, now) for each in reversed(document["artifacts"])]
    images = {each["environment"]: each["image"] for each in document["artifacts"]}
    sections += [
        [
            f"image {images[digest] or '-'}, environment {digest}",
            *_indent(_format_fields(environment)),
        ]
        for digest, environment in document["environments"].items()
    ]
    sections.append(["source files", *_format_sources(document["sources"])])
    sections.append(list(_format_verdict(document)))
    return "\n".join("\n".join(section) + "\n" for section in sections)


def _format_artifact(each: Mapping[str, Any], now: datetime.datetime) -> list[str]:
    made_by = [f"engine {each['engine']}", *(f"{of} {is_}" for of, is_ in each["versions"].items())]
    took = f", in {format_seconds(each['seconds'])} s" if each["seconds"] is not None else ""
    facts = {
        "key": each["key"],
        "content": each["content_sha256"],
        "path": str(shorten_path(Path(each["path"]))),
        "sealed": f"{each['sealed'] or '-'} ({format_age(each['sealed'], now)}){took}",
        "made by": ", ".join(made_by),
        "stage": each["stage"],
        "image": each["image"] or "-",
        "environment": each["environment"],
        "source": each["source"],
    }
    files = [
        (file["sha256"], format_bytes(file["size_bytes"]), file["path"]) for file in each["files"]
    ]
    inputs = [
        (label, f"key {key}", f"content {each['input_contents'].get(label) or '-'}")
        for label, key in sorted(each["inputs"].items())
    ]
    return [
        each["name"],
        *_indent(align(list(facts.items()))),
        *_format_part("options", _format_fields(each["options"])),
        *_format_part("files: sha256, bytes, path", align(files, right={1})),
        *_format_part("made from", align(inputs)),
    ]


def _format_part(title: str, lines: Sequence[str]) -> list[str]:
    return [f"  {title}", *_indent(_indent(lines))] if lines else []


def _format_fields(document: Mapping[str, Any]) -> list[str]:
    """Return a line per value, under its dotted name; a list has a line per item."""
    return align(list(_list_fields(document)))


def _list_fields(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in sorted(document.items()):
        title = f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _list_fields(value, f"{title}.")
        elif isinstance(value, list):
            yield from (
                (title if not number else "", f"{each}") for number, each in enumerate(value)
            )
        else:
            yield title, value if isinstance(value, str) else json.dumps(value)


def _format_sources(sources: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line per file; where stages ran several versions of one, they are named."""
    paths = [each["path"] for each in sources]
    return _indent(
        align(
            [
                (
                    each["sha256"],
                    each["path"],
                    f"({', '.join(each['stages'])})" if paths.count(each["path"]) > 1 else "",
                )
                for each in sources
            ]
        )
    )


def _format_verdict(document: Mapping[str, Any]) -> _Lines:
    if document["consistent"]:
        count = sum(len(each["inputs"]) for each in document["artifacts"])
        yield f"consistent: the store holds what went in (input digests compared: {count})"
    else:
        yield "NOT consistent"
    for each in document["problems"]:
        yield f"  {each['artifact']}: input {each['input']}: {each['what']}"
        yield f"    key {each['input_key']}"
        yield f"    recorded {each['recorded'] or '-'}"
        yield f"    found    {each['found'] or '-'}"


def _indent(lines: Sequence[str]) -> list[str]:
    return [f"  {line}" for line in lines]
