"""Independent artifacts side by side: one forked process each, its talk marked by its name.

A process of its own, since an interrupt must end a stage, a hash or a wait for a lock alike. A
worker ends when this process does, however that dies.
"""

import json
import os
import selectors
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from pipeline import errors
from pipeline.artifact.forking import interrupts_held
from pipeline.artifact.steps import Step
from pipeline.errors import INTERRUPTED, StageError, TristillError, explain_os_error
from pipeline.log import say

_DEFECT = 1


@dataclass(kw_only=True)
class _Worker:
    """A running process and what it has said so far."""

    step: Step
    pid: int
    talk: int
    verdict: int
    started_s: float
    line: bytes = b""


def run_parallel(
    steps: Sequence[Step],
    make: Callable[[Step], None],
    *,
    titles: Mapping[str, str],
    jobs: int,
    on_done: Callable[[Step], None],
) -> None:
    """Make every step as soon as its inputs are there, at most `jobs` at a time.

    After a failure nothing new begins, what runs goes on to its end, and then the first error is
    raised. KeyboardInterrupt ends all workers and goes on.
    """
    waiting, running, failed = list(steps), list[_Worker](), list[TristillError]()
    sys.stderr.flush()
    with selectors.DefaultSelector() as selector:
        try:
            while running or (waiting and not failed):
                while not failed and len(running) < jobs:
                    step = _take_ready(waiting, running)
                    if step is None:
                        break
                    say(titles[step.rule.name])
                    with interrupts_held() as begin:
                        worker = _start(step, make, begin)
                        running.append(worker)
                        selector.register(worker.talk, selectors.EVENT_READ, worker)
                for event, _ in selector.select():
                    worker = event.data
                    if _show_talk(worker):
                        continue
                    selector.unregister(worker.talk)
                    running.remove(worker)
                    if error := _finish(worker):
                        failed.append(error)
                    else:
                        on_done(worker.step)
        except BaseException:
            _end_all(running)
            raise
    if failed:
        raise failed[0]


def _take_ready(waiting: list[Step], running: Sequence[_Worker]) -> Step | None:
    """Remove and return the first step none of whose inputs is still to be made."""
    unmade = {step.rule.name for step in waiting} | {each.step.rule.name for each in running}
    for step in waiting:
        if not unmade & set(step.rule.inputs.values()):
            waiting.remove(step)
            return step
    return None


def _start(step: Step, make: Callable[[Step], None], begin: Callable[[], None]) -> _Worker:
    talk, said = os.pipe()
    verdict, judged = os.pipe()
    pid = os.fork()
    if pid == 0:
        _work(step, make, said=said, judged=judged, begin=begin)
    os.close(said)
    os.close(judged)
    return _Worker(step=step, pid=pid, talk=talk, verdict=verdict, started_s=time.monotonic())


def _work(
    step: Step, make: Callable[[Step], None], *, said: int, judged: int, begin: Callable[[], None]
) -> NoReturn:
    """Be the worker: make the step, write a failure as JSON, end without the parent's clean-up."""
    code = _DEFECT
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, _interrupt_once)
        begin()
        os.dup2(said, sys.stdout.fileno())
        os.dup2(said, sys.stderr.fileno())
        make(step)
        code = 0
    except KeyboardInterrupt:
        code = INTERRUPTED
    except (TristillError, OSError) as error:
        told = explain_os_error(error) if isinstance(error, OSError) else error
        if told is None:
            traceback.print_exc()
        else:
            os.write(judged, json.dumps([type(told).__name__, vars(told)]).encode())
            code = told.exit_code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _interrupt_once(number: int, frame: FrameType | None) -> None:
    """Interrupt the work, and let nothing interrupt the clean-up after that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _show_talk(worker: _Worker) -> bool:
    """Pass on whole lines, each after the artifact's name; return whether there may be more."""
    chunk = os.read(worker.talk, 1 << 16)
    *lines, worker.line = (worker.line + (chunk or b"\n")).split(b"\n")
    for line in lines:
        if text := line.decode("utf-8", errors="replace").rstrip():
            say(f"{worker.step.rule.name} | {text}")
    return bool(chunk)


def _finish(worker: _Worker) -> TristillError | None:
    """Take the worker's end; return its failure."""
    with open(worker.verdict, "rb") as verdict:  # noqa: PTH123
        failure = verdict.read()
    os.close(worker.talk)
    _, status = os.waitpid(worker.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    name = worker.step.rule.name
    if code == 0:
        say(f"{name}: {time.monotonic() - worker.started_s:.1f} s")
        return None
    if failure:
        kind, parts = json.loads(failure)
        error: TristillError = getattr(errors, kind)(
            parts["what"], on=parts["on"], why=parts["why"], then=parts["then"]
        )
    else:
        error = StageError(
            f"the process that made {name} ended; nothing was stored",
            on=f"process {worker.pid}",
            why=f"signal {-code} ended it" if code < 0 else f"it ended with code {code}",
            then="see what it said above, and run the same command again",
        )
    say(f"{name}: failed")
    return error


def _end_all(running: Sequence[_Worker]) -> None:
    """End the workers, showing what they still say; each cleans up after itself."""
    for worker in running:
        os.kill(worker.pid, signal.SIGTERM)
    for worker in running:
        while _show_talk(worker):
            pass
        os.close(worker.talk)
        os.close(worker.verdict)
        os.waitpid(worker.pid, 0)
