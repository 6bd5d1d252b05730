"""`rebuild`: make sealed artifacts again in a varied environment and compare every byte."""

import argparse
import time

from pipeline.artifact.engine import Engine
from pipeline.artifact.rebuild import Difference, rebuild, require_sealed
from pipeline.artifact.steps import find_sealed
from pipeline.artifact.workspace import sweep
from pipeline.errors import DifferenceError
from pipeline.log import say
from pipeline.plan import list_targets
from pipeline.project import open_project
from pipeline.report.other_hardware import describe_other_hardware


def run(arguments: argparse.Namespace) -> None:
    """Build artifacts again, in a varied environment, and compare every byte with the sealed."""
    project = open_project(arguments)
    wanted = list_targets(project.rules, arguments.artifact)
    every = project.make_steps(wanted)
    steps = [step for step in every if step.rule.name in wanted or not arguments.artifact]
    require_sealed(every, [step.rule.name for step in steps])
    sealed = find_sealed(every)
    engine = project.engine
    engine.prepare(sorted({step.rule.image for step in steps}))
    sweep(project.store.workspaces)
    different = []
    for number, step in enumerate(steps, start=1):
        say(f"[{number}/{len(steps)}] {step.rule.name}: again, elsewhere")
        started = time.monotonic()
        if difference := rebuild(step, sealed, project.store, engine):
            told = describe_other_hardware(difference.artifact.path, difference.rebuilt)
            if told is None:
                different.append(difference)
            else:
                say(f"{step.rule.name}: {told}; kept in {difference.rebuilt}")
        else:
            files = sealed[step.rule.name].manifest.files
            same = f"the same {len(files)} file{'s' if len(files) > 1 else ''}"
            say(f"{step.rule.name}: {same}, byte for byte, {time.monotonic() - started:.1f} s")
    if different:
        raise _describe(different, engine)


def _describe(different: list[Difference], engine: Engine) -> DifferenceError:
    """Write how the bytes differ; return the error that says so."""
    engine.prepare(["convert"])
    for each in different:
        directories = [each.artifact.path, each.rebuilt]
        module = ["bin/python", "-m", "pipeline.checkpoint.difference"]
        argv = [*module, *map(str, directories), *each.files]
        engine.interact("convert", argv, inputs=directories)
    return DifferenceError(
        f"a rebuild differs: {', '.join(each.artifact.name for each in different)}",
        on="; ".join(f"{each.artifact.name}: {', '.join(each.files)}" for each in different),
        why="something that the key does not name decides the bytes: the directory, the hash seed,"
        " the time, the time zone, the locale, the umask, or another machine",
        then=f"compare with {', '.join(str(each.rebuilt) for each in different)}, which stay until"
        " `python -m pipeline gc --delete`",
    )


def preview(arguments: argparse.Namespace) -> None:
    """Show the plan of the artifacts that would be made again; what is not sealed cannot be."""
    from pipeline.verbs.plan import show

    project = open_project(arguments, planning=True)
    show(project, list_targets(project.rules, arguments.artifact))
    say("what is cached would be made again, elsewhere, and compared")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", nargs="*", metavar="ARTIFACT")
