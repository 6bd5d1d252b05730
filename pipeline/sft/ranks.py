"""The processes that share a training run: which one this is, and what they agree on.

One process that nobody has started beside others is the first and the only one.
"""

from typing import TypeVar

import torch
import torch.distributed as dist

_T = TypeVar("_T")


def find_backend() -> str:
    """Return what carries tensors between processes here."""
    return "nccl" if torch.cuda.is_available() else "gloo"


def is_first() -> bool:
    """Return whether this is the process that writes and talks."""
    return find_rank() == 0


def find_rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def wait_for_all() -> None:
    """Return once every process is here."""
    if dist.is_initialized():
        dist.barrier()


def is_true_anywhere(value: bool) -> bool:
    """Return whether it is true in any process; all get the same answer."""
    if not dist.is_initialized():
        return value
    device = "cuda" if find_backend() == "nccl" else "cpu"
    flag = torch.tensor(int(value), device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())


def share(value: _T) -> _T:
    """Return the first process's value in every process."""
    if not dist.is_initialized():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def count_processes() -> int:
    """Return how many processes share the run."""
    return dist.get_world_size() if dist.is_initialized() else 1
