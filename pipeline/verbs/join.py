"""`join HOST`: this host's share of a training run that another host builds, both on one store.

The first host builds as ever: it keeps the checkpoints and seals the artifact. The others run the
same stage on the same inputs and write nothing that stays. All of them read one recipe.
"""

import argparse
from pathlib import Path

from pipeline.artifact.build import make_job, make_stage_error
from pipeline.artifact.steps import Step, find_missing, find_sealed
from pipeline.artifact.uses import using
from pipeline.artifact.workspace import make_workspace
from pipeline.errors import UsageError
from pipeline.log import say
from pipeline.project import Project, open_project, require_reachable
from pipeline.rules.training import TRAINING


def run(arguments: argparse.Namespace) -> None:
    """Take a share of the training run that the first host builds on the same store."""
    project = open_project(arguments)
    _require_host(project, arguments.host)
    require_reachable(project)
    steps = project.make_steps([TRAINING])
    (step,) = [each for each in steps if each.rule.name == TRAINING]
    if step.artifact:
        say(f"{TRAINING} is sealed: there is nothing to share")
        return
    if len(find_missing(steps, [TRAINING])) > 1:
        raise UsageError(
            "what is trained on is not in the store yet",
            on=str(project.store.root),
            why="the first host makes it, before it trains, in the store that all hosts share",
            then=f"start the first host; run this once `python -m pipeline plan` shows {TRAINING}"
            " alone to be built",
        )
    project.engine.prepare([step.rule.image])
    _run_share(project, steps, step, arguments.host)


def preview(arguments: argparse.Namespace) -> None:
    """Show the plan of what the hosts train together."""
    from pipeline.verbs.plan import show

    show(open_project(arguments, planning=True), [TRAINING])


def _run_share(project: Project, steps: list[Step], step: Step, host: int) -> None:
    store, rule = project.store, step.rule
    sealed = find_sealed(steps)
    inputs = {label: sealed[name].path for label, name in rule.inputs.items()}
    area = store.work_areas / step.directory
    area.mkdir(parents=True, exist_ok=True)
    log: Path = store.log_path(step.key, f"{rule.name}.host-{host}")
    with (
        using(store, [each.directory for each in steps]),
        make_workspace(store.workspaces, f"{step.key[:16]}-{rule.name}-host-{host}") as work,
    ):
        job = make_job(step, inputs, work, area)
        job["options"]["host"] = str(host)
        if code := project.engine.run(rule.image, job, work=work, log=log):
            raise make_stage_error(rule, code, log)
    say(f"host {host} has done its share; the first host seals {TRAINING}")


def _require_host(project: Project, host: int) -> None:
    hosts = project.recipe.train.hosts
    if not 0 < host < hosts:
        raise UsageError(
            "no such host has a share of this training run",
            on=f"host {host}",
            why=f"the recipe's [train] says hosts = {hosts}; the first, number 0, builds",
            then=f"name one of 1 to {hosts - 1}" if hosts > 1 else "set train.hosts in the recipe",
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", type=int, metavar="HOST", help="this host's number, from 1")
