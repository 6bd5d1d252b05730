"""`show`: what the store holds, what an artifact was made from, and all that proves it."""

import argparse
import datetime
import sys

from pipeline.artifact.provenance import find_artifact, find_lineage, read_statement
from pipeline.artifact.store import Artifact, open_store
from pipeline.errors import UsageError
from pipeline.log import say
from pipeline.report.provenance import format_provenance, make_provenance
from pipeline.report.show import format_lineage, format_show, make_lineage, make_show
from pipeline.report.table import dump


def run(arguments: argparse.Namespace) -> None:
    """List the sealed artifacts of the store, or show what the named ones were made from."""
    artifacts, unreadable = open_store(arguments.store).read_all()
    for damage in unreadable:
        say(f"damaged, not shown: {damage.artifact}/{damage.path}: {damage.what}")
    wanted = [find_artifact(meant, artifacts) for meant in arguments.artifact]
    if arguments.provenance and not wanted:
        raise UsageError(
            "provenance is of an artifact",
            on="--provenance",
            why="no ARTIFACT is named",
            then="python -m pipeline show --provenance ARTIFACT (its name, key or file)",
        )
    sys.stdout.write(_answer(wanted, artifacts, arguments))


def _answer(
    wanted: list[Artifact], artifacts: list[Artifact], arguments: argparse.Namespace
) -> str:
    now = datetime.datetime.now(datetime.UTC)
    if not wanted:
        document = make_show(artifacts)
        return dump(document) if arguments.json else format_show(document, now)
    lineage = find_lineage(wanted, artifacts)
    if arguments.provenance:
        statements = [read_statement(artifact) for artifact in lineage.artifacts]
        document = make_provenance(wanted, lineage, statements)
        return dump(document) if arguments.json else format_provenance(document, now)
    if arguments.json:
        return dump(make_lineage(wanted, lineage))
    return format_lineage(wanted, lineage, now)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "artifact",
        nargs="*",
        metavar="ARTIFACT",
        help="its name, the start of its key, its directory, or any copy of one of its files",
    )
    parser.add_argument(
        "--provenance",
        action="store_true",
        help="who made it, how, with what, and whether the chain back to every input is whole",
    )
