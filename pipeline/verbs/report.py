"""`report`: one page on all that the recipe has built, for sending around."""

import argparse
import os
import sys
from pathlib import Path

from pipeline.artifact.provenance import find_lineage
from pipeline.artifact.steps import find_sealed
from pipeline.artifact.store import Artifact
from pipeline.artifact.uses import using
from pipeline.errors import UsageError
from pipeline.log import say
from pipeline.plan import list_results
from pipeline.project import Project, open_project
from pipeline.report.recipe_page import Subject, make_page
from pipeline.report.recipe_text import name_source, read_public_text
from pipeline.report.training import read_run

NAME = "report.html"


def run(arguments: argparse.Namespace) -> None:
    """Write one self-contained page on all that the recipe has built."""
    project = open_project(arguments)
    path = arguments.to or project.links / NAME
    write_report(project, arguments.recipe, path)
    sys.stdout.write(f"{path}\n")


def preview(arguments: argparse.Namespace) -> None:
    """Say where the page would be, and on what."""
    project = open_project(arguments, planning=True)
    steps = project.make_steps([rule.name for rule in project.rules])
    told = ", ".join(find_sealed(steps)) or "nothing: the recipe has built nothing yet"
    say(f"would write {arguments.to or project.links / NAME} on {told}")


def write_report(project: Project, recipe: Path, path: Path) -> None:
    """Write the page. Raises UsageError when the recipe has built nothing yet."""
    steps = project.make_steps([rule.name for rule in project.rules])
    with using(project.store, [step.directory for step in steps]):
        page = make_page(make_subject(project, recipe, find_sealed(steps)))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(page, encoding="utf-8")
    unfinished.replace(path)
    say(f"{path.name}: {path.stat().st_size:,} bytes; open it in a browser")


def make_subject(project: Project, recipe: Path, sealed: dict[str, Artifact]) -> Subject:
    """Return what the page tells of the artifacts that are sealed."""
    if not sealed:
        raise UsageError(
            "there is nothing to report",
            on=str(recipe),
            why="the recipe has built nothing in this store yet",
            then="make all RECIPE=...; then make report RECIPE=...",
        )
    step = project.find_training_step()
    base = name_source(project.recipe.base.source)
    data = name_source(project.recipe.dataset.source)
    return Subject(
        name=project.recipe.gguf.name,
        about=f"Distilled from {data} traces into {base} base by the recipe {project.recipe.name}.",
        recipe=read_public_text(recipe),
        sealed=sealed,
        run=read_run(project.recipe.name, step, project.store) if step.artifact else None,
        missing=[each for each in list_results(project.rules) if each not in sealed],
        lineage=find_lineage(list(sealed.values()), list(sealed.values())),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", type=Path, metavar="FILE", help="instead of the recipe's links")
