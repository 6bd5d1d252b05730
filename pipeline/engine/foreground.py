"""A program that a person watches: on the caller's terminal, or as a server until it is stopped."""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from pipeline.artifact.forking import interrupts_held
from pipeline.engine.process import run_in_foreground

_GRACE_S = 10.0


def run_shown(
    argv: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    before_end: Callable[[], None] | None,
) -> int:
    """Run a program to its end and return its exit code: a server when something comes before its
    end, else one that has the terminal."""
    if before_end is None:
        return run_in_foreground(argv, environment=environment)
    return run_server(argv, environment=environment, before_end=before_end)


def run_server(
    argv: Sequence[str | Path], *, environment: Mapping[str, str], before_end: Callable[[], None]
) -> int:
    """Run a server, which shows what it says here and reads nothing, to its end; return its code.

    Ctrl-C reaches this process alone: on KeyboardInterrupt `before_end` comes first, which a second
    one cuts short. However this process dies, the server is told to end.
    """
    with ExitStack() as ending:
        with interrupts_held() as begin:
            process = ending.enter_context(
                subprocess.Popen(
                    [str(word) for word in argv],
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    process_group=0,
                    preexec_fn=begin,
                )
            )
            ending.callback(_end, process)
        try:
            return process.wait()
        except KeyboardInterrupt:
            with suppress(KeyboardInterrupt):
                before_end()
            raise


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
    process.kill()
