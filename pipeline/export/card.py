"""A recipe's results -> README.md, the model card that stands first in a repository of the hub.

What it is, which file to take, how to run it, how good it is and how that was measured, how and
from what it was trained, what it may be used for, and how to check all of it. Only what is sealed
is said; nothing of this machine is. Standard library alone, and pure.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.artifact.provenance import Lineage
from pipeline.artifact.store import Artifact
from pipeline.report.quality import (
    Model,
    describe_models,
    find_trained,
    read_json,
    read_models,
    read_summary,
)
from pipeline.rules.training import TRAINING
from pipeline.sft.names import FULL

_PROJECT = "Tristill"
_TRAINING = (
    *("method", "rank", "alpha", "dropout", "learning_rate", "warmup_steps", "schedule"),
    *("batch_size", "gradient_accumulation", "epochs", "max_steps", "seed", "checkpoint"),
)


@dataclass(frozen=True, kw_only=True)
class File:
    """A GGUF of the folder."""

    name: str
    type: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a card is about. `base_model` and `datasets` are owner/name on the hub, as far as they
    are there; `base` and `data` what they are called otherwise."""

    name: str
    licence: str
    base_model: str
    base: str
    datasets: Sequence[str]
    data: str
    languages: Sequence[str]
    context: int
    thinks: bool
    recipe: str
    files: Sequence[File]
    sealed: Mapping[str, Artifact]
    lineage: Lineage


def make_card(card: Card) -> str:
    """Return README.md."""
    sections = [section for section in _list_sections(card) if section]
    return _make_head(card) + "\n" + "\n\n".join(sections) + "\n"


def _make_head(card: Card) -> str:
    """Return the metadata that the hub reads (YAML, in which JSON's texts and lists are valid)."""
    head: dict[str, object] = {"license": card.licence or None, "library_name": "gguf"}
    if card.base_model:
        head |= {"base_model": [card.base_model], "base_model_relation": "finetune"}
    head |= {"datasets": list(card.datasets) or None, "language": list(card.languages) or None}
    head |= {"pipeline_tag": "text-generation"}
    head |= {"tags": ["gguf", "llama.cpp", "distillation", *(["reasoning"] if card.thinks else [])]}
    lines = [f"{name}: {json.dumps(told)}" for name, told in head.items() if told is not None]
    return "\n".join(["---", *lines, "---", ""])


def _list_sections(card: Card) -> Iterator[str]:
    models = read_models(card.sealed)
    about = f"Distilled from {card.data} into {card.base}"
    thinks = ", which thinks within `<think>` before it answers" if card.thinks else ""
    yield f"# {card.name}\n\n{about}{thinks}."
    yield "## Files\n\n" + _make_files(card.files)
    yield "## Run it\n\n" + _make_usage(card)
    if models:
        yield "## How good it is\n\n" + _make_quality(models)
    yield "## Training\n\n" + _make_training(card)
    recipe = f"```toml\n{card.recipe.strip()}\n```"
    yield f"<details><summary>The recipe</summary>\n\n{recipe}\n\n</details>"
    yield "## Licence\n\n" + _make_licence(card)
    yield "## Provenance\n\n" + _make_provenance(card)


def _make_files(files: Sequence[File]) -> str:
    rows = [[f"`{each.name}`", f"{each.size_bytes:,}", f"`{each.sha256}`"] for each in files]
    return make_markdown(["file", "bytes", "sha256"], rows)


def _make_usage(card: Card) -> str:
    file = card.files[0].name
    return (
        f"- llama.cpp: `llama-server --model {file} --jinja --ctx-size {card.context}`\n"
        f"- Ollama: `ollama create {card.name} -f Modelfile`, then `ollama run {card.name}`\n"
        f"- LM Studio: `lms import {file}`; Jan: Settings, Model Providers, Import\n\n"
        "The chat template lies in each file, and it is the one that the model was trained with."
    )


def _make_quality(models: Sequence[Model]) -> str:
    headings, rows = describe_models(models)
    notes = [
        "Every file was asked the same problems through llama.cpp's server; the held-out ones were"
        " never trained on. The interval is Wilson's."
    ]
    if "depth" in headings:
        notes.append(
            "`depth`, from 0 to 1, measures the extent of the reasoning, not its truth; `agrees`"
            " says that the answer stands at the end of the reasoning."
        )
    if "flips" in headings:
        notes.append(
            "Perplexity, KL divergence from BF16 and flips (another token is the most probable) are"
            " of the answers in held-out rows."
        )
    return make_markdown(headings, rows) + "\n\n" + " ".join(notes)


def _make_training(card: Card) -> str:
    options: dict[str, Any] = {}
    for each in (card.sealed.get(TRAINING), find_trained(card.sealed)):
        options |= each.manifest.document["options"] if each else {}
    # Steps are counted by one of the two.
    unused = {"epochs" if options.get("max_steps") else "max_steps"}
    if options.get("method") == FULL:
        unused |= {"rank", "alpha", "dropout"}
    names = [name for name in _TRAINING if name in options and name not in unused]
    rows = [[f"`{name}`", _format(options[name])] for name in names]
    lines = [make_markdown(["setting", ""], rows)] if rows else []
    summary = read_summary(card.sealed)
    if {"loss_before", "loss_after", "steps"} <= summary.keys():
        lines.append(
            f"Held-out loss: {summary['loss_before']:.4f} before, {summary['loss_after']:.4f} after"
            f" {summary['steps']:,} steps."
        )
    lines += _list_data(card)
    return "\n\n".join(lines)


def _list_data(card: Card) -> Iterator[str]:
    statistics = read_json(card.sealed.get("dataset"), "statistics.json")
    rows = [
        [name.replace("_", "-"), *(f"{split[each]:,}" for each in _COUNTS)]
        for name, split in statistics.items()
        if isinstance(split, Mapping) and set(_COUNTS) <= split.keys()
    ]
    if rows:
        yield make_markdown(["split", "rows", "tokens", "supervised tokens"], rows)
    cleaning = read_json(card.sealed.get("rows"), "cleaning.json")
    dropped = {why: count for why, count in cleaning.get("dropped", {}).items() if count}
    if dropped:
        told = ", ".join(f"{why}: {count:,}" for why, count in sorted(dropped.items()))
        yield f"Rows that were left out: {told}."


_COUNTS = ("rows", "tokens", "supervised_tokens")


def _make_licence(card: Card) -> str:
    stated = f"`{card.licence}`." if card.licence else "None is stated."
    base = card.base_model or card.base
    return f"{stated} The licences of the base ({base}) and of the data ({card.data}) bind as well."


def _make_provenance(card: Card) -> str:
    rows = [
        [each.name, f"`{each.key}`", f"`{each.manifest.content_sha256}`"]
        for each in card.lineage.artifacts
    ]
    words = (
        f"Made by {_PROJECT}, each artifact once and under the digest of all that it was made from."
        " `provenance.jsonl` holds an in-toto statement (SLSA provenance) of each artifact:"
        " options, inputs, the locks of its environment, the digests of its source."
        " `sha256sum --check SHA256SUMS` checks the files here."
    )
    return words + "\n\n" + make_markdown(["artifact", "key", "content (dirHash)"], rows)


def make_markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; numbers to the right."""
    right = [all(row[n][:1].isdigit() for row in rows) for n in range(len(headings))]
    rule = ["---:" if each else "---" for each in right]
    cells = [headings, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _format(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
