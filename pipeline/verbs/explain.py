"""`explain`: an artifact's key document, what changed since its last build, and what follows."""

import argparse
import sys

from pipeline.artifact.history import History
from pipeline.artifact.steps import find_dependents
from pipeline.project import open_project
from pipeline.report.explanation import format_explanation, make_explanation
from pipeline.report.table import dump


def run(arguments: argparse.Namespace) -> None:
    """Show an artifact's key document and what changed since the rule's last build."""
    project = open_project(arguments)
    upstream = project.make_steps([arguments.artifact])
    history = History(project.store, project.recipe.name)
    document = make_explanation(
        upstream[-1],
        changes={step.rule.name: history.find_changes(step) for step in upstream},
        fields={step.rule.name: step.rule.fields for step in upstream},
        affected={
            step.rule.name: find_dependents(project.rules, step.rule.name) for step in upstream
        },
    )
    sys.stdout.write(dump(document) if arguments.json else format_explanation(document))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", metavar="ARTIFACT")
