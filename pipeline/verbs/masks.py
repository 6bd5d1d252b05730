"""`masks`: one row with its supervised tokens marked."""

import argparse

from pipeline.artifact.uses import using
from pipeline.project import open_project


def run(arguments: argparse.Namespace) -> int:
    """Show one row with its supervised tokens marked."""
    project = open_project(arguments)
    image = project.recipe.train.image
    with using(project.store, [step.directory for step in project.make_steps(["dataset"])]):
        sealed = project.build(["dataset"])
        project.engine.prepare([image])
        directories = [sealed[name].path for name in ("dataset", "text", "rows")]
        dataset, text, rows = map(str, directories)
        argv = ["bin/python", "-m", "pipeline.data.masks", dataset, text, arguments.row, rows]
        return project.engine.interact(image, argv, inputs=directories)


def preview(arguments: argparse.Namespace) -> None:
    """Show the plan of the data set that a row would be shown of."""
    from pipeline.verbs.plan import show

    show(open_project(arguments, planning=True), ["dataset"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "row", nargs="?", default="0", help="id of a row, or number of a training row, from 0"
    )
