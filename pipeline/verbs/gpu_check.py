"""`gpu-check`: the images for NVIDIA GPUs, tried on this host's."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.artifact.uses import using
from pipeline.errors import HostError, TristillError
from pipeline.project import Project, open_project
from pipeline.verbs.choice import one_of

_GGUF = "gguf-Q4_K_M"
_IMAGES = ("train-cuda", "serve-cuda")


def run(arguments: argparse.Namespace) -> None:
    """Load in NF4, take an optimizer step and complete a prompt, all on a GPU."""
    project = open_project(arguments)
    # What needs no GGUF comes first: a host without a GPU is told at once.
    for image in _IMAGES:
        if image in (arguments.images or _IMAGES) and not _passes(project, image):
            raise HostError(
                "this host's GPU does not do what a build needs",
                on=image,
                why="see FAIL above; nothing was tried after it",
                then="python -m pipeline doctor (it says what to mend); the GPU's images come by"
                " python -m pipeline images build train-cuda serve-cuda, or"
                " images pull --registry ...",
            )


def preview(arguments: argparse.Namespace) -> None:
    """Show the plan of the file that a GPU would be asked to serve."""
    from pipeline.verbs.plan import show

    show(open_project(arguments, planning=True), [_GGUF])


def _passes(project: Project, image: str) -> bool:
    """Run one image's check; say why where that cannot be."""
    try:
        project.engine.prepare([image])
        return (_train if image == "train-cuda" else _serve)(project, image) == 0
    except TristillError as error:
        sys.stdout.write(f"FAIL {image}: {error}\n")
        return False


def _train(project: Project, image: str) -> int:
    return _interact(project, image, ["pipeline.sft.gpu_check"])


def _serve(project: Project, image: str) -> int:
    with using(project.store, [step.directory for step in project.make_steps([_GGUF])]):
        gguf = project.build([_GGUF])[_GGUF].path / "model.gguf"
        return _interact(project, image, ["pipeline.serve.gpu_check", str(gguf)], inputs=[gguf])


def _interact(
    project: Project, image: str, program: Sequence[str], inputs: Sequence[Path] = ()
) -> int:
    argv = ["bin/python", "-m", *program]
    return project.engine.interact(image, argv, inputs=inputs, gpus=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The demonstration's GGUF is what is asked, unless --recipe names another."""
    parser.add_argument(
        "images",
        nargs="*",
        type=one_of(_IMAGES),
        default=[],
        metavar="IMAGE",
        help=f"{' or '.join(_IMAGES)}; without one, both",
    )
