"""`masks`: one training row with its supervised tokens marked."""

import argparse

from pipeline.artifact.uses import using
from pipeline.project import open_project


def run(arguments: argparse.Namespace) -> int:
    """Show one training row with its supervised tokens marked."""
    project = open_project(arguments)
    image = project.recipe.train.image
    with using(project.store, [step.directory for step in project.make_steps(["dataset"])]):
        sealed = project.build(["dataset"])
        project.engine.prepare([image])
        directories = [sealed[name].path for name in ("dataset", "text")]
        argv = ["bin/python", "-m", "pipeline.sft.masks", *map(str, directories), arguments.row]
        return project.engine.interact(image, argv, inputs=directories)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("row", nargs="?", default="0", help="number, from 0, or id of a row")
