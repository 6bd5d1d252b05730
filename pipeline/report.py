"""What the verbs answer: documents for `--json` and the same as tables for people."""

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifact.build import Step
from pipeline.artifact.store import Artifact
from pipeline.estimate import Estimate


def make_plan(
    steps: Sequence[Step], missing: Collection[str], sizes: Estimate, store: Path
) -> dict[str, Any]:
    """Return the plan: what is sealed or built and why, and the sizes. Bytes of what is not built
    yet are estimates."""
    return {
        "artifacts": [
            {
                "name": step.rule.name,
                "key": step.key,
                "state": "build" if step.rule.name in missing else "cached",
                "why": _explain_state(step, missing),
                "bytes": step.size_bytes,
            }
            for step in steps
        ],
        "parameters": {"base": sizes.base_parameters, "trainable": sizes.trainable_parameters},
        "gguf": {name: {"bytes": size} for name, size in sizes.gguf_bytes.items()},
        "disk": {
            "needed_bytes": sum(step.size_bytes for step in steps if step.rule.name in missing),
            "free_bytes": shutil.disk_usage(store).free,
        },
        "vram": {"train_bytes": sizes.train_vram_bytes, "serve_bytes": sizes.serve_vram_bytes},
    }


def _explain_state(step: Step, missing: Collection[str]) -> str:
    if step.rule.name in missing:
        return step.why
    return "sealed" if step.artifact else "not needed: what is made from it is sealed"


def format_plan(plan: Mapping[str, Any]) -> str:
    """Return the plan as a table."""
    rows = [
        (each["name"], each["state"], _format_bytes(each["bytes"]), each["why"])
        for each in plan["artifacts"]
    ]
    parameters, disk, vram = plan["parameters"], plan["disk"], plan["vram"]
    share = 100 * parameters["trainable"] / parameters["base"]
    return (
        _format_table(("artifact", "state", "bytes", "why"), rows)
        + f"\nparameters: {parameters['base']:,}; trainable {parameters['trainable']:,}"
        + f" ({share:.2f} %)"
        + f"\ndisk: {disk['needed_bytes']:,} bytes needed, {disk['free_bytes']:,} free"
        + f"\nvram: about {vram['train_bytes']:,} bytes to train,"
        + f" {vram['serve_bytes']:,} to serve\n"
    )


def make_show(artifacts: Sequence[Artifact]) -> dict[str, Any]:
    """Return what the store holds."""
    return {
        "artifacts": [
            {
                "name": artifact.name,
                "key": artifact.key,
                "path": str(artifact.path),
                "bytes": artifact.manifest.size_bytes,
                "sealed": artifact.sealed_at,
                "seconds": artifact.seconds,
                "sha256": artifact.manifest.sha256,
                "files": [vars(file) for file in artifact.manifest.files],
                "inputs": artifact.manifest.document["inputs"],
            }
            for artifact in artifacts
        ]
    }


def format_show(document: Mapping[str, Any]) -> str:
    """Return the store's content as a table."""
    rows = [
        (each["name"], _format_bytes(each["bytes"]), each["sealed"] or "-", each["path"])
        for each in document["artifacts"]
    ]
    return _format_table(("artifact", "bytes", "sealed", "path"), rows)


def make_explanation(step: Step, changes: Sequence[tuple[str, Any, Any]]) -> dict[str, Any]:
    """Return the key, the document it is the digest of, and what changed since the last build."""
    return {
        "key": step.key,
        "document": step.document,
        "changed": [{"field": field, "old": old, "new": new} for field, old, new in changes],
    }


def format_explanation(document: Mapping[str, Any]) -> str:
    """Return the explanation as text."""
    lines = [f"key: {document['key']}", json.dumps(document["document"], indent=1)]
    for change in document["changed"]:
        lines.append(f"changed: {change['field']}: {change['old']} -> {change['new']}")
    return "\n".join(lines) + "\n"


def make_artifact_table(sealed: Mapping[str, Artifact], links: Mapping[str, Path]) -> str:
    """Return path, size, seconds and sha256 of each artifact; one file is named itself."""
    rows = []
    for name, artifact in sealed.items():
        files = artifact.manifest.files
        path = links[name] / files[0].path if len(files) == 1 else links[name]
        rows.append(
            (
                _shorten(path),
                _format_bytes(artifact.manifest.size_bytes),
                "-" if artifact.seconds is None else f"{artifact.seconds:.1f}",
                artifact.manifest.sha256,
            )
        )
    return "\n" + _format_table(("path", "bytes", "seconds", "sha256"), rows)


def make_result_table(sealed: Mapping[str, Artifact]) -> str:
    """Return loss before and after, and accuracy of each model asked; "" when there is neither."""
    text = ""
    if "adapter" in sealed:
        metrics = _read_json(sealed["adapter"], "metrics.json")
        text += (
            f"\nheld-out loss: {metrics['loss_before']:.4f} before,"
            f" {metrics['loss_after']:.4f} after {metrics['steps']} steps\n"
        )
    scores: dict[str, Any] = {}
    if "answers-checkpoint" in sealed:
        before_export = _read_json(sealed["answers-checkpoint"], "scores.json")
        scores["base model"] = before_export["base"]
        scores["distilled model, before export"] = before_export["distilled"]
    if "answers" in sealed:
        for file_type, score in _read_json(sealed["answers"], "scores.json").items():
            scores[f"distilled model, GGUF {file_type}"] = score
    rows = [
        (
            model,
            f"{100 * score['correct'] / score['total']:.1f} %",
            f"{score['correct']}",
            score["total"],
        )
        for model, score in scores.items()
    ]
    headings = ("held-out accuracy of the", "accuracy", "correct", "of")
    return text + ("\n" + _format_table(headings, rows) if rows else "")


def _read_json(artifact: Artifact, name: str) -> dict[str, Any]:
    return dict(json.loads((artifact.path / name).read_text(encoding="utf-8")))


def _shorten(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _format_bytes(size_bytes: int) -> str:
    return f"{size_bytes:,}"


def _format_table(headings: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> str:
    """Return aligned columns, numbers to the right."""
    cells = [headings, *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    right = [
        all(row[column][:1].isdigit() and len(row[column]) < 20 for row in cells[1:])
        for column in range(len(headings))
    ]
    lines = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]]) + "\n"
