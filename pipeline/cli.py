"""The command line: argparse, a module per verb, and the one place where errors become exit codes.

The answer (a table, a JSON document) goes to stdout, talk to stderr.
"""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from pipeline.artifact.key import REPOSITORY
from pipeline.errors import INTERRUPTED, TristillError, explain_os_error
from pipeline.log import say, start_log, write_line
from pipeline.project import RECIPES


def _make_parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of all verbs, or of the one that the command line begins with."""
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=_DESCRIPTION)
    parser.add_argument(_DRY_RUN, action="store_true", help="only say what VERB would do")
    shown = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    begins = argv[argv[:1] == [_DRY_RUN] :][:1]
    for name in begins if set(begins) & set(_VERBS) else _VERBS:
        verb = importlib.import_module(f"pipeline.verbs.{name.replace('-', '_')}")
        about = verb.run.__doc__
        of_verb = shown.add_parser(name, help=about, description=about)
        of_verb.set_defaults(run=verb.run)
        of_verb.set_defaults(preview=verb.run if name in _READING else verb.preview)
        of_verb.add_argument("--store", type=Path, default=REPOSITORY / "store", metavar="DIR")
        if name not in ("show", "verify"):
            of_verb.add_argument(
                "--recipe", type=Path, default=RECIPES / "demo.toml", metavar="FILE"
            )
        if name in ("plan", "show", "explain", "verify", "doctor"):
            of_verb.add_argument("--json", action="store_true", help="one JSON document on stdout")
        if name in _BUILDING:
            of_verb.add_argument(
                "--engine",
                choices=_ENGINES,
                default="",
                help="what stages run in; without it docker where it is ready, else venv",
            )
        verb.add_arguments(of_verb)
    return parser


_DESCRIPTION = "Distil a teacher's reasoning into an open model; every artifact built once."
_VERBS = (
    *("build", "plan", "show", "explain", "verify", "rebuild", "gc"),
    *("masks", "watch", "serve", "traffic", "images", "doctor", "gpu-check", "join"),
    *("report", "export", "publish", "lm-eval"),
)
# What they do is to say something: with --dry-run they do the same.
_READING = ("plan", "show", "explain", "doctor")
# What runs stages.
_BUILDING = ("build", "rebuild", "masks", "serve", "gpu-check", "join", "export", "publish")
_ENGINES = ("docker", "venv", "here")
_DRY_RUN = "--dry-run"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    arguments = _make_parser(argv).parse_args(argv)
    start_log()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        act = arguments.preview if arguments.dry_run else arguments.run
        code = act(arguments) or 0
        sys.stdout.flush()
        return code
    except TristillError as error:
        write_line(f"error: {error}")
        return error.exit_code
    except BrokenPipeError:
        # The answer's reader, such as `head`, has seen enough; what is left to flush goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if (explained := explain_os_error(error)) is None:
            raise
        write_line(f"error: {explained}")
        return explained.exit_code
    except KeyboardInterrupt:
        say("interrupted; what was sealed stays. Run the same command again to go on.")
        return INTERRUPTED
