"""`plan`: what a build would do, and what could be deleted."""

import argparse
import sys

from pipeline.artifact.gc import find_garbage
from pipeline.artifact.history import History
from pipeline.artifact.steps import find_missing
from pipeline.plan import list_targets
from pipeline.project import find_planned, open_project
from pipeline.report.plan import format_plan, make_plan
from pipeline.report.table import dump


def run(arguments: argparse.Namespace) -> None:
    """Show what a build would do: cached or to build and why, bytes, memory."""
    project = open_project(arguments)
    wanted = list_targets(project.rules, arguments.artifact)
    steps = project.make_steps(wanted)
    history = History(project.store, project.recipe.name)
    missing = [step.rule.name for step in find_missing(steps, wanted)]
    why = {
        step.rule.name: history.explain_build(step, missing)
        for step in steps
        if step.rule.name in missing
    }
    planned = project.list_directories() | find_planned(project.store)
    document = make_plan(
        steps,
        why,
        dispensable=project.find_dispensable(wanted),
        garbage=find_garbage(project.store, planned),
        sizes=project.estimate,
        store=project.store.root,
    )
    sys.stdout.write(dump(document) if arguments.json else format_plan(document))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", nargs="*", metavar="ARTIFACT")
