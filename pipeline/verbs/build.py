"""`build`: the named artifacts, or all that the recipe asks for; ends with their table."""

import argparse
import sys

from pipeline.plan import list_targets
from pipeline.project import open_project
from pipeline.report.result import make_artifact_table, make_result_table


def run(arguments: argparse.Namespace) -> None:
    """Build the named artifacts, or all that the recipe asks for; end with their table."""
    project = open_project(arguments)
    wanted = list_targets(project.rules, arguments.artifact)
    sealed = project.build(wanted, jobs=arguments.jobs)
    links = {name: project.links / name for name in sealed}
    shown = {name: sealed[name] for name in wanted} if arguments.artifact else sealed
    sys.stdout.write(make_artifact_table(shown, links))
    sys.stdout.write(make_result_table(sealed))


def preview(arguments: argparse.Namespace) -> None:
    """Show the plan of what would be built."""
    from pipeline.verbs.plan import show

    project = open_project(arguments, planning=True)
    show(project, list_targets(project.rules, arguments.artifact))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", nargs="*", metavar="ARTIFACT")
    parser.add_argument(
        "-j", "--jobs", type=_parse_jobs, default=1, metavar="N", help="build N at a time"
    )


def _parse_jobs(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"invalid number {text!r}: at least 1")
    return int(text)
