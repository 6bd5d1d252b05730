"""What this host's Docker is asked: short questions, each answered in some hundredths of a second.

Containers are started elsewhere (docker_engine.py). A daemon that does not answer is a HostError in
its own words.
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.errors import HostError

HOST_LABEL = "io.tristill.host"
WORK_LABEL = "io.tristill.work"

_ANSWER_S = 60.0
_WITHOUT = "or do without containers: --engine venv (for make: ENGINE=venv)"
_PROXIES = ("all_proxy", "ftp_proxy", "http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True, kw_only=True)
class Daemon:
    """What decides how a container is started.

    `rootless`: the container's root is the daemon's own user. `selinux`: bind mounts need a label
    that containers may read, or none.
    """

    data_root: Path
    rootless: bool
    selinux: bool


@dataclass(frozen=True, kw_only=True)
class Found:
    """A container of this pipeline: its name, and the work directory that it was started for."""

    name: str
    work: Path


@cache
def read_daemon() -> Daemon:
    """Return what the daemon says of itself. Raises HostError when none answers."""
    answer = json.loads(_ask("info", "--format", "{{json .}}"))
    # Without a daemon the client still gives its own half, and exit code 0 in some versions.
    if not answer.get("DockerRootDir"):
        raise _make_error("; ".join(answer.get("ServerErrors") or ["it does not answer"]))
    security = " ".join(answer.get("SecurityOptions") or [])
    return Daemon(
        data_root=Path(answer["DockerRootDir"]),
        rootless="name=rootless" in security,
        selinux="name=selinux" in security,
    )


def read_images(references: Collection[str]) -> list[dict[str, Any]]:
    """Return what this host's Docker knows of each of the images that it has; nothing is pulled.

    Raises HostError without a daemon.
    """
    answer = _run("image", "inspect", *references)
    if answer.returncode != 0 and "no such image" not in answer.stderr.lower():
        raise _make_error(answer.stderr)
    images: list[dict[str, Any]] = json.loads(answer.stdout or "[]")
    return images


def list_containers(host: str) -> list[Found]:
    """Return the pipeline's containers that this host started, running or not."""
    answer = _ask(
        *("ps", "--all", "--filter", f"label={HOST_LABEL}={host}", "--filter"),
        *(f"label={WORK_LABEL}", "--format", f'{{{{.Names}}}}\t{{{{.Label "{WORK_LABEL}"}}}}'),
    )
    pairs = (line.partition("\t") for line in answer.splitlines())
    return [Found(name=name, work=Path(work)) for name, _, work in pairs]


def remove_container(name: str) -> None:
    """End and remove a container; no error when there is none of that name."""
    with suppress(HostError):
        _run("rm", "--force", name)


def was_out_of_memory(name: str) -> bool:
    """Return whether the kernel ended a process of the container, which may be gone, for memory."""
    now = f"{time.time():.9f}"
    filters = ("--filter", f"container={name}", "--filter", "event=oom")
    with suppress(HostError):
        # The daemon remembers its last 256 events.
        return bool(_run("events", "--since", "1", "--until", now, *filters).stdout.strip())
    return False


def list_client_proxies() -> list[str]:
    """Return the variables that the client would add to every container by itself: proxies, when
    the user's Docker configuration names any."""
    home = os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker"
    try:
        configured = json.loads(Path(home, "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [each for name in _PROXIES for each in (name, name.upper())] * ("proxies" in configured)


def make_client_environment() -> dict[str, str]:
    """Return the variables that the client runs with: the caller's, which name the daemon."""
    proxies = {name for each in _PROXIES for name in (each, each.upper())}
    return {name: value for name, value in os.environ.items() if name not in proxies}


def _ask(*words: str) -> str:
    answer = _run(*words)
    if answer.returncode != 0:
        raise _make_error(answer.stderr)
    return answer.stdout


def _run(*words: str) -> "subprocess.CompletedProcess[str]":
    """Ask in a session of its own: an interrupt on the terminal must not stop a removal."""
    if shutil.which("docker") is None:
        raise HostError(
            "there is no Docker here",
            on="docker",
            why="no program of that name on PATH",
            then=f"install Docker Engine, {_WITHOUT}",
        )
    try:
        return subprocess.run(
            ["docker", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_ANSWER_S,
            env=make_client_environment(),
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise _make_error(f"no answer to `docker {words[0]}` in {_ANSWER_S:.0f} s") from None


def _make_error(told: str) -> HostError:
    return HostError(
        "Docker does not answer",
        on=os.environ.get("DOCKER_HOST", "the daemon of this host"),
        why=(told.strip().splitlines() or ["it says nothing"])[-1],
        then=f"python -m pipeline doctor (it says what to mend), {_WITHOUT}",
    )
