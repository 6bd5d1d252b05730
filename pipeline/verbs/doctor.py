"""`doctor`: whether this host is ready to build the recipe, and the one fix for what is not."""

import argparse
import sys

from pipeline.artifact.store import Store
from pipeline.doctor.checks import examine, read_situation
from pipeline.doctor.machine import Machine
from pipeline.doctor.recipe import read_needs
from pipeline.errors import HostError
from pipeline.report.doctor import format_findings, make_report
from pipeline.report.table import dump


def run(arguments: argparse.Namespace) -> None:
    """Say whether this host is ready to build the recipe, with a fix for each thing that is not."""
    machine = Machine()
    # Not opened: that would make it.
    store = Store(arguments.store.resolve())
    needs = read_needs(arguments.recipe, store)
    findings = examine(read_situation(machine, needs, store))
    colour = sys.stdout.isatty() and not machine.variables.get("NO_COLOR")
    report = make_report(findings)
    sys.stdout.write(dump(report) if arguments.json else format_findings(findings, colour=colour))
    if problems := [finding for finding in findings if finding.state == "problem"]:
        sys.stdout.flush()
        raise HostError(
            f"this host is not ready: {len(problems)} of {len(findings)} checks failed",
            on=", ".join(finding.check for finding in problems),
            why="; ".join(finding.what for finding in problems),
            then="do what stands at `fix`, then run this again",
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Take nothing beyond the recipe, the store and --json."""
