"""One job in an image's environment, as a process with nothing of the caller's variables.

A stage cannot tell that it is not in a container.
"""

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifact.engine import Variation
from pipeline.artifact.key import REPOSITORY
from pipeline.engine import process
from pipeline.engine.foreground import run_shown
from pipeline.engine.image import IMAGES
from pipeline.engine.network import make_network_variables
from pipeline.log import write_line


def run_stage(
    python: Path,
    image: str,
    job: dict[str, Any],
    *,
    work: Path,
    log: Path,
    variation: Variation | None = None,
) -> int:
    """Run one job document with the image's interpreter; return its exit code.

    Its talk goes to standard error and to the log. KeyboardInterrupt ends the stage and goes on.
    """
    document = work / "job.json"
    document.write_text(json.dumps(job, indent=2, sort_keys=True), encoding="utf-8")
    varied = variation.variables if variation else {}
    return process.run(
        [python, "-m", "pipeline.job", document],
        log_path=log,
        environment={
            **make_stage_variables(image, work),
            **_make_gpu_variables(job["stage"] in IMAGES[image].gpu_stages),
            **_make_network_variables(job),
            **(make_network_variables(os.environ) if job.get("network") else {}),
            **varied,
        },
        cwd=work,
        umask=variation.umask if variation else 0o022,
        grace_s=find_grace_s(job),
        on_line=write_line,
    )


def find_grace_s(job: Mapping[str, Any]) -> float:
    """Return how long the job's stage may take to end once it is asked to."""
    return process.SAVING_GRACE_S if "work" in job else process.GRACE_S


def run_program(
    prefix: Path,
    image: str,
    argv: Sequence[str],
    *,
    gpus: bool,
    before_end: Callable[[], None] | None,
) -> int:
    """Run a program of the environment on the caller's terminal; return its exit code."""
    with tempfile.TemporaryDirectory(prefix="tristill-") as work:
        return run_shown(
            [prefix / argv[0], *argv[1:]],
            before_end=before_end,
            environment={
                **make_stage_variables(image, Path(work)),
                **_make_gpu_variables(gpus),
            },
        )


def make_stage_variables(image: str, work: Path) -> dict[str, str]:
    """Return all variables that a stage sees; its home and scratch lie in `work`."""
    scratch = work / "tmp"
    scratch.mkdir(exist_ok=True)
    return {
        **IMAGES[image].variables,
        "HOME": str(work),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(REPOSITORY),
        "TMPDIR": str(scratch),
        "USER": "tristill",
    }


def _make_gpu_variables(sees_gpus: bool) -> dict[str, str]:
    """Return the caller's choice of GPUs where they may be seen, else the choice of none."""
    name = "CUDA_VISIBLE_DEVICES"
    if not sees_gpus:
        return {name: ""}
    return {name: os.environ[name]} if name in os.environ else {}


def _make_network_variables(job: Mapping[str, Any]) -> dict[str, str]:
    """Return the caller's choice of network interfaces for a stage that meets other hosts."""
    if not job.get("options", {}).get("address"):
        return {}
    return {name: os.environ[name] for name in os.environ if name.startswith(("NCCL_", "GLOO_"))}
