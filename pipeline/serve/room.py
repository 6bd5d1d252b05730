"""What memory a server may take on this host: its own, its container's, its GPUs'."""

import os

from pipeline.doctor.host import read_free_memory
from pipeline.doctor.machine import Machine
from pipeline.doctor.nvidia import read_nvidia
from pipeline.recipe.recipe import Limits
from pipeline.serve.capacity import Room

_CHOICE = "CUDA_VISIBLE_DEVICES"


def read_room(accelerator: str, limits: Limits, engine: str) -> Room:
    """Return what is free; a container has its own limit besides.

    Of a server for GPUs nothing is known where the driver names none: it will say so itself.
    """
    machine = Machine()
    memory_bytes = read_free_memory(machine)
    if engine == "docker" and limits.memory_gb and memory_bytes is not None:
        memory_bytes = min(memory_bytes, int(limits.memory_gb * 1e9))
    if accelerator != "cuda":
        return Room(memory_bytes=memory_bytes)
    gpus = [gpu.free_bytes or 0 for gpu in read_nvidia(machine).gpus]
    if not gpus:
        return Room(memory_bytes=None)
    return Room(memory_bytes=memory_bytes, gpu_bytes=choose_gpus(gpus, os.environ.get(_CHOICE)))


def choose_gpus(gpus: list[int], chosen: str | None) -> tuple[int, ...]:
    """Return those that the caller's choice leaves; a choice by identifiers leaves the smallest of
    all, once for each."""
    if chosen is None:
        return tuple(gpus)
    words = [word.strip() for word in chosen.split(",") if word.strip()]
    if all(word.isdecimal() and int(word) < len(gpus) for word in words):
        return tuple(gpus[int(word)] for word in words)
    return tuple([min(gpus, default=0)] * len(words))
