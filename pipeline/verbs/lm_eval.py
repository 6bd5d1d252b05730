"""`lm-eval`: tasks of lm-evaluation-harness, asked of the recipe's running server."""

import argparse
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from pipeline.engine import process
from pipeline.errors import HostError, StageError, UsageError
from pipeline.evaluate.harness import (
    PROGRAM,
    Asking,
    find_unmeant,
    make_harness_argv,
    make_harness_variables,
)
from pipeline.log import say
from pipeline.project import open_project
from pipeline.serve.access import read_keys

_HEALTH_S = 10.0


def run(arguments: argparse.Namespace) -> None:
    """Ask the running server tasks of lm-evaluation-harness, where that is installed."""
    project = open_project(arguments)
    settings = project.recipe.evaluate
    url = (arguments.url or f"http://127.0.0.1:{project.recipe.serve.port}").rstrip("/")
    if unmeant := find_unmeant(arguments.tasks, project.recipe.gguf.name):
        raise UsageError(
            "the harness cannot be told this name",
            on=unmeant,
            why="a comma or an equals sign ends a setting of its command line",
            then="name tasks one by one, with blanks between; or change gguf.name in the recipe",
        )
    program = _find_program()
    _require_server(url)
    out = arguments.to or project.links / "lm-eval"
    asking = Asking(
        url=url,
        model=project.recipe.gguf.name,
        tasks=tuple(arguments.tasks),
        parallel=project.recipe.serve.parallel,
        max_tokens=settings.max_tokens,
        seed=settings.seed,
        limit=arguments.limit,
        tasks_directory=arguments.tasks_directory,
    )
    argv = make_harness_argv(program, asking, out.resolve())
    say("+ " + " ".join([PROGRAM, *argv[1:]]))
    keys = read_keys(arguments.api_key_file) if arguments.api_key_file else []
    variables = make_harness_variables(os.environ, *keys[:1])
    if process.run_in_foreground(argv, environment=variables) != 0:
        raise StageError(
            "lm-evaluation-harness failed",
            on=", ".join(arguments.tasks),
            why="see what it says above",
            then="lm_eval ls tasks names its tasks; only those that generate can be asked",
        )
    say(f"results and samples lie in {out}")


def preview(arguments: argparse.Namespace) -> None:
    """Say which tasks would be asked of which server; none is asked."""
    project = open_project(arguments, planning=True)
    url = arguments.url or f"http://127.0.0.1:{project.recipe.serve.port}"
    say(f"would ask {', '.join(arguments.tasks)} of {url}")


def _find_program() -> str:
    if (found := shutil.which(PROGRAM)) is not None:
        return found
    raise HostError(
        "lm-evaluation-harness is not installed",
        on=f"{PROGRAM} on PATH",
        why="it is no part of this project: it fetches its tasks from the hub",
        then='pip install "lm-eval[api]" into an environment of yours, and activate it',
    )


def _require_server(url: str) -> None:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=_HEALTH_S):
            return
    except (urllib.error.URLError, ValueError, OSError) as error:
        raise HostError(
            "no server answers",
            on=url,
            why=str(getattr(error, "reason", error)),
            then="make serve RECIPE=... in another terminal; or name another by --url",
        ) from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="such as gsm8k")
    parser.add_argument(
        "--url", default="", help="the server's; without it, the recipe's port here"
    )
    parser.add_argument(
        "--limit", type=_parse_limit, default=0, metavar="N", help="problems of each task"
    )
    parser.add_argument("--to", type=Path, metavar="DIR", help="instead of the recipe's links")
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="the server's keys")
    parser.add_argument(
        "--tasks-directory", type=Path, metavar="DIR", help="where tasks of your own lie"
    )


def _parse_limit(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"invalid number {text!r}: at least 1")
    return int(text)
