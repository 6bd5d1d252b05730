"""A recipe whose every artifact is sealed under its own key, of small files, without a build."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.artifact.manifest import Manifest
from pipeline.artifact.seal import seal
from pipeline.artifact.store import Artifact, open_store
from pipeline.artifact.workspace import make_workspace
from pipeline.project import Project, read_project
from tests.artifact.sealing import write_files

RECIPE = """\
[base]
source = "demo"
[dataset]
source = "demo"
[train]
accelerator = "cpu"
[gguf]
types = ["BF16", "Q4_K_M"]
name = "My model"
[serve]
accelerator = "cpu"
context = 512
[evaluate]
before_export = true
[export]
license = "mit"
base_model = "owner/base"
"""
EVIL = "</pre><script>alert(1)</script>\u2028 &amp; <img src=x onerror=y>"
_EMPTY_GGUF = struct.pack("<4sIQQ", b"GGUF", 3, 0, 0)
_ROWS = [
    {"id": "r1", "split": "train", "tokens": 3, "supervised": 1, "texts": ["<s>", "q", "answer"]}
    | {"flags": "201", "numbers": [0, 1, 2], "domain": "", "source": ""},
]


def make_score(correct: int, total: int) -> dict[str, Any]:
    """Return a model's part of scores.json."""
    depth = {"mean": 0.5, "least": 0.1, "most": 0.9, "tenths": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]}
    reasoning = {"well_formed": correct, "verifies": 1, "agrees": 1, "depth": depth}
    steps = {"mean": 4.0, "least": 1, "most": 9}
    return {
        "correct": correct,
        "total": total,
        "interval": [0.25, 0.75],
        "unfinished": 0,
        "reasoning": reasoning | {"steps": steps},
        "long_answers": {"count": 0, "repetition": 0.0, "loops": 0},
    }


def make_lines(*correct: bool, text: str = "") -> bytes:
    """Return answers, each with its number in its text."""
    lines = [
        {"id": f"p{n}", "problem": f"problem {n}", "solution": f"solution {n}", "correct": right}
        | {"answer": "", "finished": True, "tokens": 1, "text": text or f"said {n}"}
        for n, right in enumerate(correct)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def _make_files() -> dict[str, dict[str, bytes]]:
    def write(document: object) -> bytes:
        return json.dumps(document).encode()

    records = [
        {"step": n, "epoch": n / 8, "loss": 3.0 / n, "learning_rate": 0.1, "grad_norm": 1.0}
        for n in range(1, 9)
    ]
    metrics = {"loss_before": 5.5, "loss_after": 0.25, "steps": 8}
    split = {"rows": 10, "tokens": 100, "supervised_tokens": 40}
    chat = {"bos": "<s>", "template": "{{- .Content }}", "stops": ["</s>"], "why": ""}
    page = f'<script type="application/json" id="data">{json.dumps(_ROWS)}</script>'
    return {
        "training": {
            "metrics.json": write(metrics),
            "metrics.jsonl": b"".join(write(each) + b"\n" for each in records),
        },
        "adapter": {"metrics.json": write(metrics)},
        "dataset": {"statistics.json": write({"train": split, "held_out": split})},
        "dataset-report": {"report.html": page.encode()},
        "rows": {"cleaning.json": write({"dropped": {"repeated": 7}}), "train.jsonl": b"{}"},
        "ollama": {"ollama.json": write(chat)},
        "gguf-BF16": {"model.gguf": _EMPTY_GGUF + bytes(4000), "checks.json": b"{}"},
        "gguf-Q4_K_M": {"model.gguf": _EMPTY_GGUF + bytes(1000), "checks.json": b"{}"},
        "answers-checkpoint": {
            "scores.json": write({"base": make_score(0, 4), "distilled": make_score(4, 4)}),
            "answers-base.jsonl": make_lines(False, False, False, False),
            "answers-distilled.jsonl": make_lines(True, True, True, True),
        },
        "answers": {
            "scores.json": write({"BF16": make_score(4, 4), "Q4_K_M": make_score(3, 4)}),
            "answers-BF16.jsonl": make_lines(True, True, True, True, text=f"<think>{EVIL}"),
            "answers-Q4_K_M.jsonl": make_lines(True, True, False, True),
        },
    }


def write_recipe(folder: Path, text: str = RECIPE) -> Path:
    """Write the recipe."""
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def seal_recipe(
    folder: Path, files: Mapping[str, Mapping[str, bytes]] | None = None, text: str = RECIPE
) -> tuple[Project, Path]:
    """Return the project and the recipe; `files` replaces what an artifact holds, none leaves it
    out."""
    path = write_recipe(folder, text)
    store = open_store(folder / "store")
    project = read_project(path, store, engine_name="venv")
    made = _make_files() | dict(files or {})
    sealed: dict[str, Artifact] = {}
    for step in project.make_steps([rule.name for rule in project.rules]):
        held = made.get(step.rule.name, {"file": step.rule.name.encode()})
        if not held:
            continue
        inputs = {
            label: sealed[name].manifest.content_sha256
            for label, name in step.rule.inputs.items()
            if name in sealed
        }
        manifest = Manifest(
            files=(),
            document=step.document,
            environment=step.environment,
            source=step.source,
            inputs=inputs,
            engine="venv",
        )
        with make_workspace(store.workspaces, step.rule.name) as work:
            sealed[step.rule.name] = seal(
                store,
                write_files(work / "out", held),
                key=step.key,
                name=step.rule.name,
                manifest=manifest,
                seconds=1.5,
            )
    return project, path
