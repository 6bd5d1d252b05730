"""What a build has made: its files, and how good the model is."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifact.manifest import File
from pipeline.artifact.store import Artifact
from pipeline.evaluate.interval import make_interval
from pipeline.gguf_types import REFERENCE
from pipeline.recipe.train import RESULTS
from pipeline.report.table import format_bytes, format_seconds, format_table, shorten_path


def make_artifact_table(sealed: Mapping[str, Artifact], links: Mapping[str, Path]) -> str:
    """Return path, size, seconds and sha256 of each artifact; one file is named itself, and so is
    a GGUF, beside which only its checks lie."""
    rows = []
    for name, artifact in sealed.items():
        manifest = artifact.manifest
        file = _find_file(manifest.files)
        rows.append(
            (
                shorten_path(links[name] / file.path if file else links[name]),
                format_bytes((file or manifest).size_bytes),
                format_seconds(artifact.seconds),
                (file or manifest).sha256,
            )
        )
    return "\n" + format_table(("path", "bytes", "seconds", "sha256"), rows)


def _find_file(files: Sequence[File]) -> File | None:
    """Return the file that stands for the artifact, None when it is all of them."""
    named = files if len(files) == 1 else [file for file in files if file.path.endswith(".gguf")]
    return named[0] if len(named) == 1 else None


def make_result_table(sealed: Mapping[str, Artifact]) -> str:
    """Return loss before and after, the accuracy of each model asked, and how far each file is from
    the 16-bit one; "" when there is none of them."""
    text = ""
    for name in set(RESULTS) & set(sealed):
        metrics = _read_json(sealed[name], "metrics.json")
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
            _format_interval(*make_interval(score["correct"], score["total"])),
            f"{score['correct']}",
            score["total"],
        )
        for model, score in scores.items()
    ]
    headings = ("accuracy of the", "accuracy", "95 % interval", "correct", "of")
    text += "\n" + format_table(headings, rows) if rows else ""
    return text + _make_divergence_table(sealed)


def _format_interval(low: float, high: float) -> str:
    return f"{100 * low:.1f} to {100 * high:.1f}"


def _make_divergence_table(sealed: Mapping[str, Artifact]) -> str:
    if "divergence" not in sealed:
        return ""
    found = _read_json(sealed["divergence"], "divergence.json")
    rows = [
        (
            name,
            f"{each['perplexity']:.4f}",
            f"{each['kl_divergence']['mean'] if name != REFERENCE else 0:.6f}",
            f"{100 * each['flips'] if name != REFERENCE else 0:.2f} %",
        )
        for name, each in found.items()
    ]
    tokens = found[REFERENCE]["tokens"]
    headings = (f"on {tokens:,} held-out tokens", "perplexity", "KL divergence", "flips")
    return "\n" + format_table(headings, rows)


def _read_json(artifact: Artifact, name: str) -> dict[str, Any]:
    return dict(json.loads((artifact.path / name).read_text(encoding="utf-8")))
