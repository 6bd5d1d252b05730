"""One training stage as several processes, which share the rows of each optimizer step.

`launch` starts this host's, one GPU each where there are GPUs; on several hosts, every host's
`launch` starts its own, and they meet at the first host's address. Processes that `torchrun` or
`accelerate launch` has started are recognised by the variables that those set: no `launch` then.
"""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.multiprocessing.spawn import ProcessContext, ProcessExitedException, start_processes

from pipeline import errors
from pipeline.errors import HostError, StageError, TristillError
from pipeline.log import start_log, stop_log
from pipeline.sft.ranks import find_backend

_LOOPBACK = "127.0.0.1"
# Once one process has failed, the others, which wait for it, are ended.
_END_S = 5.0
# The first process may wait for as long as another run, or a large checkpoint, takes to be written.
_PATIENCE = timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Group:
    """The processes of a run, evenly on `hosts`, of which this is number `host`. `address` is
    where they meet: HOST:PORT of the first; "" where there is one host alone."""

    processes: int
    hosts: int = 1
    host: int = 0
    address: str = ""

    @property
    def here(self) -> int:
        """How many processes this host has."""
        return self.processes // self.hosts


def is_launched() -> bool:
    """Return whether this process is one of several that were started together."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch(run: Callable[..., None], arguments: tuple[Any, ...], group: Group) -> None:
    """Call `run` in this host's processes of the group; return when all have returned.

    Raises the error of the first that fails. Ends by the signal that has ended one.
    """
    if torch.cuda.is_available():
        _require_gpus(group)
    group = replace(group, address=group.address or f"{_LOOPBACK}:{find_free_port()}")
    failures = multiprocessing.get_context("spawn").SimpleQueue()
    context = start_processes(
        _be_process,
        (run, arguments, group, failures),
        nprocs=group.here,
        join=False,
        start_method="spawn",
    )
    assert context is not None
    try:
        with _requests_passed_on(context):
            while not context.join(grace_period=_END_S):
                pass
    except ProcessExitedException as error:
        if not failures.empty():
            kind, parts = failures.get()
            raise getattr(errors, kind)(
                parts["what"], on=parts["on"], why=parts["why"], then=parts["then"]
            ) from error
        if error.exit_code >= 0:
            raise
        signal.signal(-error.exit_code, signal.SIG_DFL)
        signal.raise_signal(-error.exit_code)


def join_others(processes: int) -> None:
    """Meet the other processes of the run, when there are any.

    Raises StageError when they are not as many as the recipe says: each has its share of the rows.
    """
    if not is_launched():
        return
    started = int(os.environ["WORLD_SIZE"])
    if started != processes:
        raise StageError(
            "the processes of this run are not as many as its recipe says",
            on=f"train.processes = {processes}, {started} started",
            why="torchrun was told another number of processes or hosts",
            then=f"start {processes} in all, or set train.processes = {started}",
        )
    if os.environ["RANK"] != "0":
        stop_log()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # Without it the trainer would set another number of threads.
    os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))
    dist.init_process_group(find_backend(), timeout=_PATIENCE)


def leave_others() -> None:
    """Part from the other processes, when there are any: all have done their share."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _require_gpus(group: Group) -> None:
    if (there := torch.cuda.device_count()) < group.here:
        raise HostError(
            "too few GPUs for this recipe",
            on=f"train.processes = {group.processes} on {group.hosts} host(s): {group.here} here",
            why=f"each process trains on a GPU of its own, and there are {there}",
            then=f"set train.processes = {there * group.hosts} in the recipe, or add hosts",
        )


def find_free_port() -> int:
    """Return a port that nobody listens on here, for the moment."""
    with socket.socket() as listening:
        listening.bind((_LOOPBACK, 0))
        return int(listening.getsockname()[1])


@contextmanager
def _requests_passed_on(context: ProcessContext) -> Iterator[None]:
    """Pass a request to end on to the processes, which decide when."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in context.processes:
            if process.is_alive():
                process.terminate()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, pass_on) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _be_process(
    here: int, run: Callable[..., None], arguments: tuple[Any, ...], group: Group, failures: Any
) -> None:
    """Be one of this host's processes; a failure that a user can cause is handed to the parent."""
    start_log()
    address, _, port = group.address.rpartition(":")
    os.environ |= {
        "RANK": str(group.host * group.here + here),
        "LOCAL_RANK": str(here),
        "WORLD_SIZE": str(group.processes),
        "LOCAL_WORLD_SIZE": str(group.here),
        "MASTER_ADDR": address,
        "MASTER_PORT": port,
    }
    try:
        run(*arguments)
    except TristillError as error:
        failures.put((type(error).__name__, vars(error)))
        raise SystemExit(error.exit_code) from error
