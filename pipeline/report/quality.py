"""How good each model of a recipe is, read from its sealed answers: for pages, cards and tables."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.artifact.store import Artifact
from pipeline.evaluate.interval import make_interval
from pipeline.gguf_types import FILE_TYPES
from pipeline.recipe.train import RESULTS

GGUF = "gguf-"
FILE = "model.gguf"
BASE, DISTILLED = "base model", "before export"
_LEAST_CHANCE = 0.001


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model that was asked: a served file of a type, or a checkpoint before export.

    `type` is "" before export, and `size_bytes` 0. `interval` is the accuracy's, 95 %, as shares.
    `score` is the model's part of scores.json; `distance` what divergence.json says of the file.
    """

    title: str
    type: str
    size_bytes: int
    correct: int
    total: int
    interval: tuple[float, float]
    score: Mapping[str, Any]
    distance: Mapping[str, Any]

    @property
    def accuracy(self) -> float:
        """The share of right answers."""
        return self.correct / self.total if self.total else 0.0


def read_models(sealed: Mapping[str, Artifact]) -> list[Model]:
    """Return the models that were asked: base, distilled before export, then each file."""
    before = read_json(sealed.get("answers-checkpoint"), "scores.json")
    served = read_json(sealed.get("answers"), "scores.json")
    distances = read_distances(sealed)
    models = [
        _make_model(title, "", 0, before[name], {})
        for name, title in (("base", BASE), ("distilled", DISTILLED))
        if name in before
    ]
    for name, size_bytes in read_sizes(sealed).items():
        if name in served:
            distance = distances.get(name, {})
            models.append(_make_model(f"GGUF {name}", name, size_bytes, served[name], distance))
    return models


def _make_model(
    title: str,
    file_type: str,
    size_bytes: int,
    score: Mapping[str, Any],
    distance: Mapping[str, Any],
) -> Model:
    correct, total = int(score["correct"]), int(score["total"])
    low, high = score.get("interval") or make_interval(correct, total)
    return Model(
        title=title,
        type=file_type,
        size_bytes=size_bytes,
        correct=correct,
        total=total,
        interval=(low, high),
        score=score,
        distance=distance,
    )


def read_sizes(sealed: Mapping[str, Artifact]) -> dict[str, int]:
    """Return the bytes of each GGUF by its type, in the order of the recipe."""
    sizes: dict[str, int] = {}
    for name, artifact in sealed.items():
        if name.startswith(GGUF) and name.removeprefix(GGUF) in FILE_TYPES:
            found = [file for file in artifact.manifest.files if file.path == FILE]
            sizes |= {name.removeprefix(GGUF): each.size_bytes for each in found}
    return sizes


def read_distances(sealed: Mapping[str, Artifact]) -> dict[str, Mapping[str, Any]]:
    """Return what the sealed divergence.json says of each type, if there is one."""
    document = read_json(sealed.get("divergence"), "divergence.json")
    return {name: each for name, each in document.items() if isinstance(each, Mapping)}


def read_summary(sealed: Mapping[str, Artifact]) -> dict[str, Any]:
    """Return the summary of the training at the checkpoint that was taken; {} without one."""
    return read_json(find_trained(sealed), "metrics.json")


def find_trained(sealed: Mapping[str, Artifact]) -> Artifact | None:
    """Return what training made: an adapter, or the whole of the weights."""
    return next((sealed[name] for name in RESULTS if name in sealed), None)


def read_json(artifact: Artifact | None, name: str) -> dict[str, Any]:
    """Return the artifact's JSON object; {} where there is no such artifact, file or object."""
    found = read_document(artifact, name)
    return found if isinstance(found, dict) else {}


def read_document(artifact: Artifact | None, name: str) -> Any:
    """Return the artifact's JSON document; None where there is no such artifact or file."""
    if artifact is None or not _has(artifact, name):
        return None
    return json.loads((artifact.path / name).read_text(encoding="utf-8"))


def read_lines(artifact: Artifact | None, name: str) -> Iterator[dict[str, Any]]:
    """Yield the objects of an artifact's JSON lines; none where there is no such file."""
    if artifact is None or not _has(artifact, name):
        return
    with (artifact.path / name).open("rb") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)


def _has(artifact: Artifact, name: str) -> bool:
    return any(file.path == name for file in artifact.manifest.files)


def describe_models(models: Sequence[Model]) -> tuple[list[str], list[list[str]]]:
    """Return headings and a row of cells per model; columns that say nothing are left out."""
    columns = {
        "model": [each.title for each in models],
        "bytes": [f"{each.size_bytes:,}" if each.size_bytes else "-" for each in models],
        "accuracy": [f"{each.accuracy:.1%}" for each in models],
        "95 % interval": [f"{each.interval[0]:.1%} to {each.interval[1]:.1%}" for each in models],
        "right": [f"{each.correct:,} of {each.total:,}" for each in models],
        "p against the first": [
            _format_chance(_find(each.score, ("compared", "p_value"))) for each in models
        ],
    }
    columns |= {
        heading: [_format(each.distance.get(name), 0, form) for each in models]
        for heading, (name, form) in _OF_DISTANCE.items()
    }
    columns |= {
        heading: [_format(_find(each.score, path), each.total, form) for each in models]
        for heading, (path, form) in _OF_SCORE.items()
    }
    told = {name: cells for name, cells in columns.items() if set(cells) != {"-"}}
    return list(told), [list(row) for row in zip(*told.values(), strict=True)]


# Heading -> where it stands in a score, and how it is written; "share" is of the answers.
_OF_SCORE = {
    "well-formed": (("reasoning", "well_formed"), "share"),
    "checks itself": (("reasoning", "verifies"), "share"),
    "agrees": (("reasoning", "agrees"), "share"),
    "steps": (("reasoning", "steps", "mean"), ".1f"),
    "depth": (("reasoning", "depth", "mean"), ".2f"),
    "cut off": (("unfinished",), "share"),
    "loops": (("long_answers", "loops"), ""),
}
_OF_DISTANCE = {
    "perplexity": ("perplexity", ".4f"),
    "KL divergence": ("kl_divergence", ".2g"),
    "flips": ("flips", ".2%"),
}


def _find(document: Mapping[str, Any], path: Sequence[str]) -> Any:
    found: Any = document
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def _format_chance(value: Any) -> str:
    if not isinstance(value, int | float):
        return "-"
    return f"{value:.3f}" if value >= _LEAST_CHANCE else f"< {_LEAST_CHANCE}"


def _format(value: Any, total: int, form: str) -> str:
    if isinstance(value, Mapping):
        value = value.get("mean")
    if not isinstance(value, int | float):
        return "-"
    return f"{value / max(1, total):.1%}" if form == "share" else f"{value:{form}}"
