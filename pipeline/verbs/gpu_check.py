"""`gpu-check`: the images for NVIDIA GPUs, tried on this host's."""

import argparse
import sys
from pathlib import Path

from pipeline.artifact.uses import using
from pipeline.errors import HostError, TristillError
from pipeline.project import Project, open_project

_GGUF = "gguf-Q4_K_M"


def run(arguments: argparse.Namespace) -> None:
    """Load in NF4, take an optimizer step and complete a prompt, all on a GPU."""
    project = open_project(arguments)
    with using(project.store, [step.directory for step in project.make_steps([_GGUF])]):
        gguf = project.build([_GGUF])[_GGUF].path / "model.gguf"
        programs = (
            ("train-cuda", ["bin/python", "-m", "pipeline.sft.gpu_check"]),
            ("serve-cuda", ["bin/python", "-m", "pipeline.serve.gpu_check", str(gguf)]),
        )
        failed = [image for image, argv in programs if not _passes(project, image, argv)]
    if failed:
        raise HostError(
            "this host's GPU does not do what a build needs",
            on=", ".join(failed),
            why="see FAIL above",
            then="python -m pipeline doctor (it says what to mend); the GPU's images come by"
            " python -m pipeline images build train-cuda serve-cuda, or images pull --registry ...",
        )


def _passes(project: Project, image: str, argv: list[str]) -> bool:
    """Run one check in its image; say why where that cannot be."""
    inputs = [path for path in map(Path, argv) if path.is_absolute()]
    try:
        project.engine.prepare([image])
        return project.engine.interact(image, argv, inputs=inputs, gpus=True) == 0
    except TristillError as error:
        sys.stdout.write(f"FAIL {image}: {error}\n")
        return False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The demonstration's GGUF is what is asked, unless --recipe names another."""
