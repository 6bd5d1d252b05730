"""A small training run: its options, the run itself, and its trainer alone."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from pipeline.data.packing import pack_rows
from pipeline.sft import adapter, training
from pipeline.sft.arrow import read_split
from pipeline.sft.method import make_subject
from pipeline.sft.options import Options
from pipeline.sft.trainer import Trainer, make_trainer

ROOT = Path(__file__).parents[2]
OPTIONS = Options(
    method="lora",
    rank=4,
    alpha=8.0,
    rslora=False,
    init="zero",
    dropout=0.0,
    target_modules=("q_proj", "v_proj", "down_proj", "up_proj"),
    modules_to_save=(),
    learning_rate=1e-2,
    embedding_learning_rate=0.0,
    warmup_steps=1,
    schedule="cosine",
    optimizer="adamw",
    weight_decay=0.0,
    neftune_alpha=0.0,
    batch_size=4,
    gradient_accumulation=2,
    gradient_checkpointing=False,
    activation_offload=False,
    pack_tokens=0,
    max_steps=3,
    epochs=1.0,
    max_grad_norm=1.0,
    seed=1,
    eval_rows=8,
    checkpoint_steps=0,
    patience=0,
    best_by="loss",
    processes=1,
    sharding="none",
    deepspeed="",
    cpu_threads=1,
    report_to="",
    hosts="1",
    host="0",
    address="",
)


def train(text: Path, dataset: Path, out: Path, **changes: Any) -> dict[str, torch.Tensor]:
    """Run both stages, into `out` and beside it; return the tensors that were chosen."""
    out.mkdir()
    folder = out.with_name(f"{out.name}-run")
    run_here(text, dataset, folder, **changes)
    choose(folder, out)
    whole = changes.get("method") == "full"
    name = "model.safetensors" if whole else "adapter_model.safetensors"
    tensors: dict[str, torch.Tensor] = load_file(out / name)
    return tensors


def run_here(text: Path, dataset: Path, folder: Path, **changes: Any) -> None:
    """Run the training stage in the folder."""
    options = dataclasses.replace(OPTIONS, **changes)
    training.run({"text": text, "dataset": dataset}, options, *make_places(folder))


def make_places(folder: Path) -> tuple[Path, Path]:
    """Return where a run in the folder writes: its output, emptied, and its work area."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "out").mkdir(parents=True)
    (folder / "work").mkdir(exist_ok=True)
    return folder / "out", folder / "work"


def choose(folder: Path, out: Path, checkpoint: str = "last", best_by: str = "loss") -> None:
    """Run the stage that chooses a checkpoint of the run in the folder."""
    options = adapter.Options(checkpoint=checkpoint, best_by=best_by)
    adapter.run({"training": folder / "out"}, options, out)


def start_run(
    text: Path, dataset: Path, folder: Path, variables: Mapping[str, str] = {}, **changes: Any
) -> "subprocess.Popen[str]":
    """Start a run in the folder, in a process of its own, as an engine does."""
    out, work = make_places(folder)
    job = {
        "stage": "sft.training",
        "inputs": {"text": str(text), "dataset": str(dataset)},
        "options": dataclasses.asdict(dataclasses.replace(OPTIONS, **changes)),
        "out": str(out),
        "work": str(work),
    }
    (folder / "job.json").write_text(json.dumps(job))
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.job", str(folder / "job.json")],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def read_files(folder: Path) -> dict[str, bytes]:
    """Return all that a run in the folder has written, by path."""
    out = folder / "out"
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def start_trainer(text: Path, dataset: Path, scratch: Path, **changes: Any) -> Trainer:
    """Return a trainer that has taken no step yet."""
    options = dataclasses.replace(OPTIONS, **changes)
    rows = read_split(dataset / "train.arrow")
    if options.pack_tokens:
        rows = pack_rows(rows, options.pack_tokens)
    return make_trainer(make_subject(text, options), rows, options=options, scratch=scratch)
