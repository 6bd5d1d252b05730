"""`gc`: what no recipe, link or running build reaches; a list first, removed with `--delete`."""

import argparse
import datetime
import sys

from pipeline.artifact.gc import collect, find_garbage
from pipeline.project import find_planned, open_project
from pipeline.report.garbage import format_garbage


def run(arguments: argparse.Namespace) -> None:
    """List what nothing reaches any more; with --delete, remove it."""
    project = open_project(arguments)
    planned = project.list_directories() | find_planned(project.store)
    dispensable: set[str] = set()
    if arguments.intermediates:
        dispensable = project.find_dispensable()
        dispensable -= find_planned(project.store, but=arguments.recipe)
    find = collect if arguments.delete else find_garbage
    garbage = find(project.store, planned, dispensable)
    now = datetime.datetime.now(datetime.UTC)
    sys.stdout.write(format_garbage(garbage, now, deleted=arguments.delete))


def preview(arguments: argparse.Namespace) -> None:
    """List what would be removed."""
    run(argparse.Namespace(**{**vars(arguments), "delete": False}))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--delete", action="store_true", help="remove what is listed")
    parser.add_argument(
        "--intermediates",
        action="store_true",
        help="also what the recipe's sealed results were made from",
    )
