"""The command that starts a container: what a program in it sees, and all that it may not do.

It reads its image, the pipeline's code and its inputs; it writes one directory, memory-backed
scratch, and nothing else; it has no network (a server: one published port; a stage that fetches:
Docker's own), no capability, and the caller's user. Its variables are the image's.
"""

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pipeline.engine.docker_client import HOST_LABEL, WORK_LABEL, Daemon
from pipeline.engine.layout import PREFIX, SCRATCH

# Processes that train together exchange gradients there (NCCL); Docker's 64 MB hold not several's.
_SHARED_MEMORY = "1g"
# Triton and torch.compile load libraries from there.
_SCRATCH_OPTIONS = "rw,exec,nosuid,nodev,mode=1777"


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A file or directory of this host, and where the container sees it."""

    source: Path
    target: PurePosixPath
    writable: bool = False


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What a container may use. `memory_bytes` 0: all that there is."""

    memory_bytes: int
    pids: int


@dataclass(frozen=True, kw_only=True)
class Label:
    """What a container is found by when its maker is dead."""

    name: str
    host: str
    work: Path


def make_argv(
    program: Sequence[str],
    image: str,
    *,
    label: Label,
    mounts: Sequence[Mount],
    options: Sequence[str],
) -> list[str]:
    """Return the command that runs a program of the image's environment.

    The program's path is relative to the environment's prefix; `options` come from the functions
    below.
    """
    return [
        *("docker", "run", "--rm", "--init", "--pull", "never", "--no-healthcheck"),
        *("--name", label.name),
        *("--label", f"{WORK_LABEL}={label.work}", "--label", f"{HOST_LABEL}={label.host}"),
        *("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--tmpfs", f"{SCRATCH}:{_SCRATCH_OPTIONS}", "--workdir", str(SCRATCH)),
        *options,
        *(word for mount in mounts for word in ("--mount", _format(mount))),
        *("--entrypoint", str(PREFIX / program[0]), image, *program[1:]),
    ]


def make_bound_options(bounds: Bounds) -> list[str]:
    """Return the options that hold a container to its bounds; memory does not include swap."""
    options = ["--pids-limit", str(bounds.pids)]
    if bounds.memory_bytes:
        options += ["--memory", str(bounds.memory_bytes), "--memory-swap", str(bounds.memory_bytes)]
    return options


def make_gpu_options(sees_gpus: bool) -> list[str]:
    """Return the options that show a container the host's GPUs: those of CUDA_VISIBLE_DEVICES."""
    if not sees_gpus:
        return []
    chosen = ["--env", "CUDA_VISIBLE_DEVICES"] if "CUDA_VISIBLE_DEVICES" in os.environ else []
    return ["--gpus", "all", "--shm-size", _SHARED_MEMORY, *chosen]


def make_user_options(daemon: Daemon, mounts: Sequence[Mount]) -> list[str]:
    """Return the options that make the container's user this one.

    Of the caller's other groups it gets those that the mounts belong to.
    """
    if daemon.rootless:
        # The container's root is this user; any other user there would be a stranger here.
        options = ["--user", "0:0"]
    else:
        groups = {mount.source.stat().st_gid for mount in mounts} & set(os.getgroups())
        options = ["--user", f"{os.getuid()}:{os.getgid()}"]
        for group in sorted(groups - {os.getgid()}):
            options += ["--group-add", str(group)]
    return options + (["--security-opt", "label=disable"] if daemon.selinux else [])


def make_network_options(port: int, address: str) -> list[str]:
    """Return the options for no network, or for one port at an address of this host."""
    if not port:
        return ["--network", "none"]
    shown = f"[{address}]" if ":" in address else address
    return ["--publish", f"{shown}:{port}:{port}"]


def make_mounts(path: Path, target: PurePosixPath) -> list[Mount]:
    """Return what shows a file or directory, read-only, at the target.

    A link that leads out of the directory, as in a download cache, would lead nowhere in a
    container: then each entry is mounted by itself.
    """
    source = path.resolve()
    entries = sorted(source.iterdir()) if source.is_dir() else []
    if not any(map(_leads_out, entries)):
        return [Mount(source=source, target=target)]
    return [
        Mount(source=entry.resolve(), target=target / entry.name)
        for entry in entries
        if entry.is_file() or entry.is_dir()
    ]


def _leads_out(path: Path) -> bool:
    if not path.is_symlink():
        return False
    link = path.readlink()
    return link.is_absolute() or ".." in link.parts


def _format(mount: Mount) -> str:
    """Return the option's value: fields of a CSV line, quoted where a path holds a comma."""
    fields = ["type=bind", f"source={mount.source}", f"target={mount.target}"]
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(fields + ["readonly"] * (not mount.writable))
    return line.getvalue()
