"""The one door to other programs: argv lists, echoed to a log, and nothing left running.

A program runs in its own session with its output copied line by line. When it ends, or when this
process is interrupted, whatever it started is ended too. There is never a shell.
"""

import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

from pipeline.artifact.forking import interrupts_held
from pipeline.engine.talk import read_lines

GRACE_S = 5.0
# A stage with a work area may have a step to finish and gigabytes to write there.
SAVING_GRACE_S = 600.0


def run(
    argv: Sequence[str | Path],
    *,
    log_path: Path,
    environment: Mapping[str, str],
    cwd: Path | None = None,
    umask: int = -1,
    grace_s: float = GRACE_S,
    on_line: Callable[[str], None] = lambda line: None,
) -> int:
    """Run the program to its end and return its exit code (negative: the signal that ended it).

    Its output, standard error included, is appended to the log and given to `on_line` as it comes,
    from another thread. KeyboardInterrupt asks the program to end, kills it after `grace_s`, or at
    once on a second KeyboardInterrupt, and goes on.
    """
    words = [str(word) for word in argv]
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab", buffering=0) as log:
        log.write(f"+ {shlex.join(words)}\n".encode())
        with ExitStack() as ending:
            with interrupts_held() as begin:
                process = subprocess.Popen(
                    words,
                    cwd=cwd,
                    umask=umask,
                    env=dict(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=begin,
                )
                assert process.stdout is not None
                output = ending.enter_context(process.stdout)
                reader = threading.Thread(target=_copy_lines, args=(output, log, on_line))
                reader.start()
                ending.callback(reader.join)
                ending.callback(_end_group, process, grace_s)
            return process.wait()


def run_in_foreground(argv: Sequence[str | Path], *, environment: Mapping[str, str]) -> int:
    """Run the program on this process's own terminal to its end; return its exit code.

    Ctrl-C reaches both; then, and on SIGTERM, the program is ended before the exception goes on.
    """
    with subprocess.Popen([str(word) for word in argv], env=dict(environment)) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE_S)
            process.kill()
            raise


def read_last_lines(log_path: Path, count: int = 15) -> str:
    """Return the end of a log, for an error message."""
    return "\n".join(log_path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def _copy_lines(output: IO[bytes], log: IO[bytes], on_line: Callable[[str], None]) -> None:
    """Copy to the program's end, heard or not: it would wait for ever for someone to read."""
    is_heard = True
    for line in read_lines(output.fileno()):
        log.write(line + b"\n")
        if is_heard:
            try:
                on_line(line.decode("utf-8", errors="replace"))
            except OSError:  # as of `make train 2>&1 | head`; the log has it all
                is_heard = False


def _end_group(process: subprocess.Popen[bytes], grace_s: float) -> None:
    """End the program and all that it started: asked first, killed after a grace."""
    if process.poll() is not None:
        grace_s = GRACE_S  # it is done, and what it has left has nothing to save
    for number, within_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, GRACE_S)):
        if not _signal_group(process.pid, number):
            break
        with suppress(KeyboardInterrupt):  # a second one: no grace
            _wait_for_group(process, within_s)
    process.wait()


def _wait_for_group(process: subprocess.Popen[bytes], within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while _signal_group(process.pid, 0) and time.monotonic() < deadline:
        process.poll()
        time.sleep(0.02)


def _signal_group(group: int, number: int) -> bool:
    """Send the signal; return whether anything of the group is left."""
    with suppress(ProcessLookupError):
        os.killpg(group, number)
        return True
    return False
