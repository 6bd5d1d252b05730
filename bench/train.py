"""`ENV/bin/python -m bench.train [--gpu]`: the training stage's steps beside TRL's own trainer.

ENV is the environment `train`, with `--gpu` `train-cuda`. On the CPU: what our wiring adds to a
step of a small model, where that is most. On a GPU: tokens per second, model FLOP utilisation and
peak memory with the flagship's shapes, random weights in NF4 made on the device, its memory capped
as a 24 GB card has it. The report goes to stdout in Markdown and to
`bench/results/train.md`, in which each of the two keeps its own part; with `--quick`, which only
tries the script, to stdout alone.
"""

import argparse
import dataclasses
import datetime
import json
import os
import platform
import re
import statistics
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.machine import read_cpu_model
from bench.random_checkpoint import FLAGSHIP
from bench.script import run_script, scratch_directory
from bench.train_case import WARM_STEPS, Case
from bench.tree_usage import measure
from pipeline.artifact.key import REPOSITORY
from pipeline.demo.shape import make_config
from pipeline.errors import StageError
from pipeline.estimate.shape import parse_shape
from pipeline.log import step

_RESULT = REPOSITORY / "bench" / "results" / "train.md"
_TARGET = 1.03  # of TRL's seconds of a step
_WAYS = ("ours", "trl")
_CLOCKS = {"wall_s": "by the clock", "cpu_s": "by CPU time"}
_TITLES = {"ours": "stage `training`", "trl": "TRL"}
_LAYERS, _VOCABULARY_SIZE = 40, 131_072
_CAP_BYTES = 24_000_000_000
# 4 x 2,048 tokens, rank 16, on a card of 24 GB: the published account that the recipe
# devstral-small-2-24b follows.
_BLOG_STEP_S, _BLOG_TOKENS = 11.0, 4 * 2048
_NO_GPU = (
    "No GPU was at hand where this was measured: there are no figures yet. The one command is"
    " `ENV/bin/python -m bench.train --gpu`, ENV being the environment `train-cuda`."
)
_PARTS = ("## On the CPU", "## On a GPU")

Figures = dict[str, Any]


def make_cpu_case(quick: bool) -> Case:
    """Return the demonstration's shape and settings: short steps, of which overhead is most."""
    return Case(
        text_config=make_config(256)["text_config"],
        method="lora",
        rank=16,
        tokens=128,
        batch_size=8,
        gradient_accumulation=1,
        steps=5 if quick else 120,
        threads=1,
        memory_bytes=0,
    )


def make_gpu_cases(quick: bool) -> list[Case]:
    """Return 8,192 tokens a step in rows of three lengths, with two ranks, and the largest again
    with activations in the host's memory; quick: one small one."""
    text = make_config(256, _VOCABULARY_SIZE)["text_config"] | FLAGSHIP
    text |= {"num_hidden_layers": 2 if quick else _LAYERS, "max_position_embeddings": 16_384}
    lengths, ranks = ((2048,), (16,)) if quick else ((2048, 4096, 8192), (16, 64))
    cases = [
        Case(
            text_config=text,
            method="qlora",
            rank=rank,
            tokens=tokens,
            batch_size=1,
            gradient_accumulation=_BLOG_TOKENS // tokens,
            steps=5,
            threads=1,
            memory_bytes=_CAP_BYTES,
        )
        for tokens in lengths
        for rank in ranks
    ]
    return [*cases, dataclasses.replace(cases[-1], activation_offload=True)]


def run_case(way: str, case: Case, work: Path) -> Figures:
    """Return what a process of its own measured."""
    case_path, figures = work / "case.json", work / "figures.json"
    case_path.write_text(json.dumps(dataclasses.asdict(case)), encoding="utf-8")
    figures.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "bench.train_steps", way, str(case_path), str(figures)]
    measure(argv, work / "steps.log", len(os.sched_getaffinity(0)))
    return dict(json.loads(figures.read_text(encoding="utf-8")))


def measure_cpu(work: Path, runs: int, quick: bool) -> str:
    """Return the report's part on the CPU."""
    case = make_cpu_case(quick)
    rounds = []
    for number in range(runs):
        with step(f"round {number + 1} of {runs}"):
            rounds.append(run_case("turns", case, work))
    taken = {
        (way, name): [seconds for each in rounds for seconds in each[way][name]]
        for way in _WAYS
        for name in ("wall_s", "cpu_s")
    }
    lines = [
        _PARTS[0],
        "",
        f"{_describe()} Model and settings of the demonstration ({case.batch_size} rows of"
        f" {case.tokens} tokens a step, LoRA of rank {case.rank} on every projection), one thread."
        " Both ways in one process, a step each in turns, so that whatever else the machine does"
        f" is met by both: {case.steps} pairs of steps after the first {WARM_STEPS}, {runs}"
        " processes. Both log every step; ours also repeats to the bit, looks at each loss and"
        " gradient, and writes its line.",
        "",
        "| way | ms per step, median | CPU ms per step, median |",
        "|---|---|---|",
        *(
            f"| {_TITLES[way]} | {1000 * statistics.median(taken[way, 'wall_s']):.2f} |"
            f" {1000 * statistics.median(taken[way, 'cpu_s']):.2f} |"
            for way in _WAYS
        ),
        "",
        *(_judge(name, unit, rounds) for name, unit in _CLOCKS.items()),
    ]
    return "\n".join(lines) + "\n"


def _judge(name: str, unit: str, rounds: Sequence[Figures]) -> str:
    """Return what ours takes more than TRL: the median over all pairs, and of each process."""
    pairs = [
        [a / b for a, b in zip(each["ours"][name], each["trl"][name], strict=True)]
        for each in rounds
    ]
    ratio = statistics.median(ratio for each in pairs for ratio in each)
    alone = ", ".join(f"{100 * (statistics.median(each) - 1):+.1f}" for each in pairs)
    met = "met" if ratio <= _TARGET else "MISSED"
    return (
        f"- {unit}: {100 * (ratio - 1):+.1f} %, the median of all pairs (of each process: {alone});"
        f" target <= {100 * (_TARGET - 1):.0f} %, {met}"
    )


def measure_gpu(work: Path, quick: bool) -> str:
    """Return the report's part on a GPU."""
    cases = make_gpu_cases(quick)
    device = run_case("matmul", cases[0], work)
    rows = []
    for case in cases:
        for way in _WAYS:
            offloads = ", offloaded" if case.activation_offload else ""
            with step(f"{way}: {case.tokens} tokens, rank {case.rank}{offloads}"):
                rows.append(_format_gpu(way, case, run_case(way, case, work), device["flops"]))
    return "\n".join(
        [
            _PARTS[1],
            "",
            f"{_describe()} {device['device']}, {device['flops'] / 1e12:,.0f} TFLOP/s in a large"
            f" BF16 product; memory capped at {_CAP_BYTES / 1e9:.0f} GB by the allocator. The"
            " flagship's shapes, random weights in NF4 (double quantization), gradient"
            f" checkpointing, {_BLOG_TOKENS:,} tokens a step. Utilisation counts the model's own"
            " products once (forward, and backward to the activations: the base is frozen), not"
            " what checkpointing computes again, as a share of that large product.",
            "",
            "| way | tokens of a row | rank | activations offloaded | s per step | tokens/s |"
            f" utilisation | peak memory | times the blog's {_BLOG_STEP_S:g} s |",
            f"|{'---|' * 9}",
            *rows,
            "",
        ]
    )


def _format_gpu(way: str, case: Case, figures: Figures, flops: float) -> str:
    offloads = "yes" if case.activation_offload else "no"
    head = f"| {_TITLES[way]} | {case.tokens:,} | {case.rank} | {offloads} |"
    if "out_of_memory" in figures:
        return f"{head} out of memory | - | - | - | - |"
    seconds = statistics.median(figures["wall_s"])
    tokens = case.tokens * case.batch_size * case.gradient_accumulation
    used = count_flops(case.text_config, case.tokens) * tokens / seconds / flops
    return (
        f"{head} {seconds:.2f} | {tokens / seconds:,.0f} | {100 * used:.0f} % |"
        f" {figures['peak_bytes'] / 1e9:.1f} GB | {_BLOG_STEP_S / seconds:.2f} |"
    )


def count_flops(text_config: dict[str, Any], tokens: int) -> float:
    """Return the floating-point operations per token of a step on a frozen base.

    Two for each weight of a product forward and two backward, to the activations alone; attention
    looks at half of the row on average, twice (scores, values), and costs twice as much backward.
    """
    shape = parse_shape(text_config, on="the benchmark's shape")
    weights = shape.count_projections() + shape.vocabulary * shape.hidden
    attention = 2 * 2 * shape.layers * shape.heads * shape.head_dim * tokens / 2
    return 4 * weights + 3 * attention


def _describe() -> str:
    names = ("torch", "transformers", "trl", "peft", "bitsandbytes")
    return (
        f"{datetime.datetime.now(datetime.UTC).date()}. {read_cpu_model()},"
        f" {os.cpu_count()} cores; load average at the start {os.getloadavg()[0]:.1f}. Python"
        f" {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in names)}."
    )


def join_parts(there: str, fresh: str) -> str:
    """Return the whole report, the fresh part in its place and the other as it was."""
    parts = dict.fromkeys(_PARTS, "")
    parts[_PARTS[1]] = f"{_PARTS[1]}\n\n{_NO_GPU}\n"
    for text in (there, fresh):
        for part in re.split(r"(?m)^(?=## )", text):
            for head in _PARTS:
                if part.startswith(head):
                    parts[head] = part.rstrip() + "\n"
    body = "\n".join(each for each in parts.values() if each)
    return f"# Training beside TRL\n\n`python -m bench.train`.\n\n{body}"


def _parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.train", description=__doc__)
    add = parser.add_argument
    add("--gpu", action="store_true", help="the part that needs a GPU, instead of the CPU's")
    add("--scratch", type=Path, default=REPOSITORY / "bench" / "work", metavar="DIR")
    add("--runs", type=int, default=4, metavar="N", help="processes on the CPU")
    add("--quick", action="store_true", help="few steps, one round, no result file")
    return parser.parse_args(argv)


def _require_gpu() -> None:
    import torch

    if not torch.cuda.is_available():
        raise StageError(
            "there is no GPU to measure",
            on=f"torch {torch.__version__}",
            why="no CUDA device is visible, or this is not the environment train-cuda",
            then="run this on a host with a GPU: ENV/bin/python -m bench.train --gpu",
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and write the report; return the exit code."""
    arguments = _parse_arguments(argv)
    return run_script(lambda: run(arguments), None if arguments.quick else _RESULT)


def run(arguments: argparse.Namespace) -> str:
    """Measure what is asked for; return the report, with the other part as it was."""
    with scratch_directory(arguments.scratch.resolve() / "tristill-train") as work:
        if arguments.gpu:
            _require_gpu()
            fresh = measure_gpu(work, arguments.quick)
        else:
            fresh = measure_cpu(work, 1 if arguments.quick else arguments.runs, arguments.quick)
    there = _RESULT.read_text(encoding="utf-8") if _RESULT.exists() else ""
    return join_parts(there, fresh)


if __name__ == "__main__":
    sys.exit(main())
