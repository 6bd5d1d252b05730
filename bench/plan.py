"""`python -m bench.plan`: seconds of a plan, and its models of memory beside what is counted.

The plan of the flagship from its shipped config, with and without the files of a vocabulary of
131,072 entries, as whole processes; and what a training step of its layers allocates
(bench/training_memory.py, in the environment `train`). Report: stdout and bench/results/plan.md.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.script import run_script
from bench.timing import Program, Timing, make_variables, measure
from pipeline.artifact.key import REPOSITORY
from pipeline.engine import venv
from pipeline.engine.environment import read_envs_dir
from pipeline.engine.image import IMAGES
from pipeline.estimate.base_config import find_config, find_shipped
from pipeline.estimate.shape import Shape, parse_shape
from pipeline.estimate.training import TrainingForm, model_training
from pipeline.sft.names import PROJECTIONS

_RESULT = REPOSITORY / "bench" / "results" / "plan.md"
_NAME = "Devstral-Small-2-24B-Instruct-2512"
_TARGET_S = 2.0
_ROUNDS = 7

_WRITE_TOKENIZER = """
import sys
from pathlib import Path
from pipeline.demo.tokenizer import CONTROL_TOKENS, build_tokenizer, write_tokenizer
from pipeline.engine.environment import read_envs_dir
from tests.tekken import read_tekken
tekken = read_tekken(read_envs_dir())
controls = [CONTROL_TOKENS.get(each, f"<SPECIAL_{each}>") for each in range(tekken.control_count)]
write_tokenizer(Path(sys.argv[1]), build_tokenizer(controls, tekken.ranks))
"""


def _run_python(image: str, *arguments: str) -> str:
    """Return what a Python of an image's environment says."""
    python = venv.make_environment(IMAGES[image]).find(read_envs_dir()) / "bin" / "python"
    done = subprocess.run(
        [str(python), "-W", "ignore", *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    return done.stdout


def time_plans(folder: Path) -> dict[str, Timing]:
    """Return the seconds of the plan, without and with the tokenizer's files."""
    whole = folder / "whole"
    whole.mkdir()
    shutil.copy(find_shipped(_NAME) / "config.json", whole / "config.json")
    _run_python("convert", "-c", _WRITE_TOKENIZER, str(whole))
    programs: list[Program] = []
    for title, source in (("config.json alone", f"/absent/{_NAME}"), ("tokenizer too", whole)):
        recipe = folder / f"{len(programs)}.toml"
        recipe.write_text(f'[base]\nsource = "{source}"\n[dataset]\nsource = "demo"\n')
        argv = (sys.executable, "-m", "pipeline", "plan", "--recipe", recipe)
        programs.append(
            Program(
                title=title,
                argvs=((*argv, "--store", folder / "store"),),
                cwd=REPOSITORY,
                variables=make_variables(),
                expected="Fits a 24 GB card",
            )
        )
    return {title: found[0] for title, found in measure(programs, _ROUNDS, folder / "log").items()}


def _read_shape() -> Shape:
    config = find_config(_NAME)
    assert config is not None
    return parse_shape(config.config, on=config.on)


def compare_memory() -> list[tuple[str, int, int]]:
    """Return what is compared, the bytes that are counted, and the model's."""
    text = _run_python(
        "train", "-m", "bench.training_memory", str(find_shipped(_NAME) / "config.json")
    )
    few, more, longer = json.loads(text.splitlines()[-1])
    shape = _read_shape()
    return [
        (
            "kept by a layer, 2,048 tokens",
            (more["kept"] - few["kept"]) // (more["layers"] - few["layers"]),
            _model(shape, few).parts["activations"] // few["layers"],
        ),
        *(
            (
                f"most in the backward pass of {each['layers']} layers, {each['tokens']:,} tokens",
                each["most"],
                _model(shape, each).layer_bytes + _model(shape, each).parts["activations"],
            )
            for each in (few, more, longer)
        ),
    ]


def _model(shape: Shape, case: dict[str, int]) -> Any:
    form = TrainingForm(
        method="lora",
        rank=16,
        target_modules=PROJECTIONS,
        batch_size=1,
        accumulation=1,
        sequence=case["tokens"],
        optimizer="adamw",
        checkpointing=True,
        offloads=False,
        on_gpu=True,
    )
    return model_training(replace(shape, layers=case["layers"]), form)


def format_report(timings: dict[str, Timing], memory: Sequence[tuple[str, int, int]]) -> str:
    """Return the report in Markdown."""
    lines = [
        "# The plan: how long, and how near",
        "",
        f"`python -m bench.plan`; {_NAME}; {os.cpu_count()} cores, load average at the end"
        f" {os.getloadavg()[0]:.1f}. Seconds of whole processes, {_ROUNDS} rounds.",
        "",
        "| plan from | median | least | most |",
        "|---|---|---|---|",
        *(
            f"| {title} | {each.median_s:.2f} | {each.minimum_s:.2f} | {max(each.seconds):.2f} |"
            for title, each in timings.items()
        ),
        "",
        *(
            f"- {title}: under {_TARGET_S:g} s: {'met' if each.median_s < _TARGET_S else 'missed'}"
            for title, each in timings.items()
        ),
        "",
        "## Memory of training",
        "",
        "Allocations of the model's own classes with a LoRA adapter of rank 16, counted on tensors"
        " without data (`bench/training_memory.py`); no GPU was at hand, so CUDA's context,"
        " fragmentation and the unpacking of 4-bit weights are not measured.",
        "",
        "| bytes | counted | model | error |",
        "|---|---|---|---|",
        *(
            f"| {what} | {counted:,} | {modelled:,} | {modelled / counted - 1:+.1%} |"
            for what, counted, modelled in memory
        ),
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    """Measure, and write the report; return the exit code."""
    return run_script(run, _RESULT)


def run() -> str:
    """Measure everything; return the report."""
    with tempfile.TemporaryDirectory() as folder:
        return format_report(time_plans(Path(folder)), compare_memory())


if __name__ == "__main__":
    sys.exit(main())
