"""What every script here ends with: measure, print the report, keep it; errors as everywhere."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pipeline.artifact.workspace import make_workspace, sweep
from pipeline.errors import INTERRUPTED, TristillError, explain_os_error
from pipeline.log import say, start_log


def run_script(make_report: Callable[[], str], result: Path | None) -> int:
    """Print the report and, unless `result` is None, keep it there; return the exit code, which is
    0 whether or not a target is met."""
    start_log()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        report = make_report()
    except TristillError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except OSError as error:
        if (explained := explain_os_error(error)) is None:
            raise
        sys.stderr.write(f"error: {explained}\n")
        return explained.exit_code
    except KeyboardInterrupt:
        say("interrupted; nothing is left in the scratch directory")
        return INTERRUPTED
    sys.stdout.write(report)
    if result:
        result.write_text(report, encoding="utf-8")
    return 0


@contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """Yield a new directory, gone when the script ends, however that is."""
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    with make_workspace(parent, "tristill") as work:
        yield work


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
