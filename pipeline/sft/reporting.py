"""`report_to` -> the trainer's own reporters, which write files and reach no network.

A stage has none: TensorBoard's events and MLflow's database are read where they lie, and a run of
Weights & Biases is an offline one, which `wandb sync DIRECTORY` sends on from a host that may. None
of them changes a byte of what is trained, so that they stand in no key.
"""

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from pipeline.errors import StageError

REPORTS = "reports"  # of the work area; kept beside the log when the run is sealed


def prepare_reporters(names: Sequence[str], directory: Path) -> None:
    """Make the directory that the reporters write below, and say so to them.

    Raises StageError when a reporter's package is not in the image.
    """
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise StageError(
            "a reporter is not in the image",
            on=f"train.report_to: {', '.join(missing)}",
            why="the image holds what docker/train.in lists, and nobody else needs these packages",
            then="take it out of the recipe (`make watch` shows the run without it), or add its"
            " package to docker/train.in and run make locks",
        )
    for name in names:
        (directory / name).mkdir(parents=True, exist_ok=True)
    os.environ.update(make_variables(directory))


def make_variables(directory: Path) -> dict[str, str]:
    """Return the variables that say to each reporter where it writes, and that it stays offline."""
    return {
        "TENSORBOARD_LOGGING_DIR": str(directory / "tensorboard"),
        "WANDB_DIR": str(directory / "wandb"),
        "WANDB_DISABLE_CODE": "true",
        "WANDB_MODE": "offline",
        "WANDB_PROJECT": "tristill",
        "MLFLOW_EXPERIMENT_NAME": "tristill",
        "MLFLOW_TRACKING_URI": f"sqlite:///{directory / 'mlflow' / 'mlflow.db'}",
    }
