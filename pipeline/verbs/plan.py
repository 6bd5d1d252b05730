"""`plan`: what a build would do and need, before a byte moves; `--dry-run` of other verbs, too."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.artifact.gc import find_garbage
from pipeline.artifact.history import History
from pipeline.artifact.steps import find_missing
from pipeline.errors import UsageError
from pipeline.log import say
from pipeline.plan import list_targets
from pipeline.project import Project, find_planned, open_project
from pipeline.report.colour import wants_colour
from pipeline.report.graph import format_graph
from pipeline.report.plan import Work, make_plan
from pipeline.report.plan_text import format_plan
from pipeline.report.table import dump


def run(arguments: argparse.Namespace) -> None:
    """Show what a build would do and need: cached or to build and why, bytes, memory, time."""
    project = open_project(arguments, planning=True)
    wanted = list_targets(project.rules, arguments.artifact)
    plan = describe(project, wanted, price=arguments.price)
    if arguments.graph is not None:
        _write(arguments.graph, format_graph(plan))
    text = dump(plan) if arguments.json else format_plan(plan, colour=wants_colour(sys.stdout))
    sys.stdout.write(text)


def show(project: Project, wanted: Sequence[str]) -> None:
    """Write the plan of the wanted artifacts for people."""
    sys.stdout.write(format_plan(describe(project, wanted), colour=wants_colour(sys.stdout)))


def describe(
    project: Project, wanted: Sequence[str], *, price: float | None = None
) -> dict[str, Any]:
    """Return the plan of the wanted artifacts; `price` is that of an hour of a GPU."""
    steps = project.make_steps(wanted)
    history = History(project.store, project.recipe.name)
    missing = [step.rule.name for step in find_missing(steps, wanted)]
    unkeyed = project.find_unkeyed()
    work = Work(
        steps=steps,
        wanted=wanted,
        why={
            step.rule.name: unkeyed.get(step.rule.name) or history.explain_build(step, missing)
            for step in steps
            if step.rule.name in missing
        },
        unkeyed=unkeyed,
        dispensable=project.find_dispensable(wanted),
        garbage=find_garbage(
            project.store, project.list_directories() | find_planned(project.store)
        ),
        store=project.store.root,
    )
    outlook = project.make_outlook(price=price)
    return make_plan(project.recipe, work, sizes=project.estimate, outlook=outlook)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            "the picture of the plan cannot be written",
            on=str(path),
            why=str(error.strerror),
            then="name a file in a directory that exists and can be written: --graph FILE.svg",
        ) from error
    say(f"wrote {path}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", nargs="*", metavar="ARTIFACT")
    parser.add_argument(
        "--graph", type=Path, metavar="FILE.svg", help="also draw the artifacts into an SVG file"
    )
    parser.add_argument(
        "--price",
        type=_parse_price,
        metavar="NUMBER",
        help="what a GPU costs an hour, for the cost of the training",
    )


def _parse_price(text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = math.nan
    if not 0 <= price < math.inf:
        raise argparse.ArgumentTypeError(f"invalid price {text!r}: a number from 0")
    return price
