"""The `docker` engine: each stage in a container of its own, which is gone when the stage ends.

A container cannot outlive its maker for long: an interrupt goes through the client to the program,
a client that is asked to stop asks the container, what stays is removed by name; and whatever a
killed maker left is found by its labels when the next build is prepared.
"""

import json
import os
import socket
import sys
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.artifact.engine import Variation
from pipeline.artifact.file_lock import is_free
from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.workspace import make_workspace
from pipeline.engine import container_image, docker_client, process
from pipeline.engine.docker_run import (
    Bounds,
    Label,
    Mount,
    make_argv,
    make_bound_options,
    make_gpu_options,
    make_mounts,
    make_network_options,
    make_user_options,
)
from pipeline.engine.foreground import run_shown
from pipeline.engine.image import IMAGES
from pipeline.engine.layout import CHAT_PAGE, CODE, INPUTS, JOB, OUT, WORK
from pipeline.engine.network import (
    CERTIFICATES,
    find_system_certificates,
    make_network_variables,
)
from pipeline.engine.pip_settings import CA_BUNDLE
from pipeline.engine.stage import find_grace_s
from pipeline.errors import HostError
from pipeline.log import say, write_line

_PRELOAD = "LD_PRELOAD"
_PRELOADED = PurePosixPath("/preloaded.so")
# A container's umask is its daemon's affair, so a stage sets its own.
_START = (
    "import os, runpy, sys; os.umask(int(sys.argv.pop(1), 8)); "
    "runpy.run_module('pipeline.job', run_name='__main__', alter_sys=True)"
)
# What `docker run` itself ends with: it failed, the program cannot be run, there is no program.
_NOT_RUN = (125, 126, 127)
_SIGNAL = 128


@dataclass(frozen=True, kw_only=True)
class DockerEngine:
    """Containers of this host's Docker.

    `memory_gb` (10^9 bytes, 0 for no limit) and `pids` bound each.
    """

    memory_gb: float = 0.0
    pids: int = 4096
    name: str = "docker"
    listens_on: str = "0.0.0.0"
    chat_page: str = str(CHAT_PAGE)

    def count_missing_bytes(self, images: Collection[str]) -> tuple[Path, int]:
        """Return nothing to be written: images are made and fetched by verbs of their own."""
        return docker_client.read_daemon().data_root, 0

    def prepare(self, images: Collection[str]) -> None:
        """Remove what dead makers left. HostError without a daemon, or when an image is missing."""
        missing = [image for image in sorted(images) if container_image.find_image(image) is None]
        if missing:
            raise HostError(
                "an image is not here",
                on=", ".join(map(container_image.make_tag, missing)),
                why="this host's Docker has none of that tag, and a build fetches nothing",
                then="make images (builds them), make pull REGISTRY=... (fetches them)"
                f"{_offer_venv(missing)}",
            )
        _remove_abandoned()

    def run(
        self,
        image: str,
        job: dict[str, Any],
        *,
        work: Path,
        log: Path,
        variation: Variation | None = None,
    ) -> int:
        document, mounts = _place(job)
        secrets: dict[str, str] = {}
        job_path = work / "job.json"
        job_path.write_text(json.dumps(document, indent=2, sort_keys=True), encoding="utf-8")
        mounts.append(Mount(source=job_path.resolve(), target=JOB))
        program = ["bin/python", "-m", "pipeline.job", str(JOB)]
        if job.get("network"):
            secrets, options = _reach_network(mounts)
        else:
            options = ["--network", "none"]
        if variation:
            program[1:3] = ["-c", _START, f"{variation.umask:03o}"]
            options += _vary(variation, mounts)
        with _labelled(job["stage"], work) as label:
            options += make_gpu_options(job["stage"] in IMAGES[image].gpu_stages)
            argv = self._make_argv(image, program, label=label, mounts=mounts, options=options)
            return _run(
                argv, image, label=label, log=log, grace_s=find_grace_s(job), secrets=secrets
            )

    def interact(
        self,
        image: str,
        argv: Sequence[str],
        *,
        inputs: Collection[Path] = (),
        port: int = 0,
        address: str = "127.0.0.1",
        before_end: Callable[[], None] | None = None,
        gpus: bool = False,
    ) -> int:
        targets = {str(path): INPUTS / str(n) / path.name for n, path in enumerate(inputs)}
        mounts = [mount for path in inputs for mount in make_mounts(path, targets[str(path)])]
        program = [_replace_path(word, targets) for word in argv]
        terminal = _make_terminal_options() if before_end is None else []
        network = make_network_options(port, address)
        options = [*network, *terminal, *make_gpu_options(gpus)]
        scratch = Path(tempfile.gettempdir())
        with make_workspace(scratch, "tristill") as work, _labelled(image, work) as label:
            command = self._make_argv(image, program, label=label, mounts=mounts, options=options)
            environment = docker_client.make_client_environment()
            code = run_shown(command, environment=environment, before_end=before_end)
            if code in _NOT_RUN:
                raise _make_error(image, "see Docker's words above")
        return code

    def _make_argv(
        self,
        image: str,
        program: Sequence[str],
        *,
        label: Label,
        mounts: Sequence[Mount],
        options: Sequence[str],
    ) -> list[str]:
        """Return the command of a container that holds the pipeline's code and the mounts."""
        daemon = docker_client.read_daemon()
        code = Mount(source=REPOSITORY / "pipeline", target=CODE / "pipeline")
        bounds = Bounds(memory_bytes=int(self.memory_gb * 1e9), pids=self.pids)
        # The client adds its own configuration's proxies to every container, unless told not to.
        proxies = [word for name in docker_client.list_client_proxies() for word in ("--env", name)]
        return make_argv(
            program,
            container_image.make_tag(image),
            label=label,
            mounts=[code, *mounts],
            options=[
                *make_user_options(daemon, mounts),
                *make_bound_options(bounds),
                *proxies,
                *options,
            ],
        )


def _replace_path(word: str, targets: Mapping[str, PurePosixPath]) -> str:
    """Return the word with the path that it is, or begins with before a colon, as a container has
    it."""
    if word in targets:
        return str(targets[word])
    path, colon, rest = word.rpartition(":")
    return f"{targets[path]}{colon}{rest}" if path in targets else word


def _place(job: Mapping[str, Any]) -> tuple[dict[str, Any], list[Mount]]:
    """Return the job document as a container has it, and the mounts that make it true."""
    inputs = {label: Path(path) for label, path in job["inputs"].items()}
    # A file keeps its name, which messages tell.
    targets = {
        label: INPUTS / label / path.name if path.is_file() else INPUTS / label
        for label, path in inputs.items()
    }
    mounts = [mount for label in inputs for mount in make_mounts(inputs[label], targets[label])]
    mounts.append(Mount(source=Path(job["out"]).resolve(), target=OUT, writable=True))
    placed = {label: str(target) for label, target in targets.items()}
    document = {**job, "inputs": placed, "out": str(OUT)}
    if "work" in job:
        mounts.append(Mount(source=Path(job["work"]).resolve(), target=WORK, writable=True))
        document["work"] = str(WORK)
    return document, mounts


def _reach_network(mounts: list[Mount]) -> tuple[dict[str, str], list[str]]:
    """Return the variables of a container that fetches, and the options that hand them on by their
    names alone; certificates are mounted."""
    variables = make_network_variables(os.environ)
    named = variables.get(CERTIFICATES)
    if certificates := Path(named) if named else find_system_certificates():
        mounts.append(Mount(source=certificates.resolve(), target=CA_BUNDLE))
        variables[CERTIFICATES] = str(CA_BUNDLE)
    return variables, [word for name in sorted(variables) for word in ("--env", name)]


def _vary(variation: Variation, mounts: list[Mount]) -> list[str]:
    """Return the options of a variation's variables; a preloaded library is mounted, too."""
    variables = dict(variation.variables)
    if _PRELOAD in variables:
        mounts.append(Mount(source=Path(variables[_PRELOAD]).resolve(), target=_PRELOADED))
        variables[_PRELOAD] = str(_PRELOADED)
    return [word for pair in sorted(variables.items()) for word in ("--env", "=".join(pair))]


def _make_terminal_options() -> list[str]:
    """Return the options that hand the caller's terminal on; a background job that read it would be
    stopped."""
    if not sys.stdin.isatty():
        return ["--interactive"]
    if _is_in_background(sys.stdin.fileno()):
        return []
    return ["--interactive", "--tty"] if sys.stdout.isatty() else ["--interactive"]


def _is_in_background(terminal: int) -> bool:
    try:
        return os.tcgetpgrp(terminal) != os.getpgrp()
    except OSError:
        return False  # it controls no jobs of ours


def _run(
    argv: Sequence[str],
    image: str,
    *,
    label: Label,
    log: Path,
    grace_s: float,
    secrets: Mapping[str, str],
) -> int:
    """Run the container to its end; return the stage's code (negative: what signal ended it).

    `secrets` are variables that the command names and whose values it leaves out.
    """
    last = deque[str](maxlen=4)

    def show(line: str) -> None:
        last.append(line)
        write_line(line)

    environment = {**docker_client.make_client_environment(), **secrets}
    code = process.run(argv, log_path=log, environment=environment, grace_s=grace_s, on_line=show)
    if code < 0:
        # Somebody ended the client, not the container.
        docker_client.remove_container(label.name)
    if code in _NOT_RUN:
        raise _make_error(image, "\n        ".join(last))
    if code != 0 and docker_client.was_out_of_memory(label.name):
        say("the container ran out of memory: the recipe's [limits] memory_gb is its limit")
    return _SIGNAL - code if code > _SIGNAL else code


def _make_error(image: str, why: str) -> HostError:
    return HostError(
        "the container could not be run",
        on=container_image.make_tag(image),
        why=why,
        then=f"python -m pipeline doctor (it says what to mend){_offer_venv([image])}",
    )


def _offer_venv(images: Collection[str]) -> str:
    """Return the way without containers, where every image has it."""
    if any(IMAGES[image].only_in_containers for image in images):
        return ""
    return ", or do without containers: --engine venv (for make: ENGINE=venv)"


@contextmanager
def _labelled(title: str, work: Path) -> Iterator[Label]:
    """Yield the label of one container, which is removed when it is not gone by itself."""
    name = f"tristill-{title}-{uuid.uuid4().hex[:12]}"
    label = Label(name=name, host=socket.gethostname(), work=work.resolve())
    try:
        yield label
    except BaseException:
        docker_client.remove_container(name)
        raise


def _remove_abandoned() -> None:
    """Remove this host's containers whose makers are dead."""
    for each in docker_client.list_containers(socket.gethostname()):
        if _is_abandoned(each.work):
            say(f"removing container {each.name}: its maker is dead")
            docker_client.remove_container(each.name)


def _is_abandoned(work: Path) -> bool:
    try:
        # A rebuild works in a directory below the one that its maker has locked.
        return not work.is_dir() or (is_free(work) and is_free(work.parent))
    except PermissionError:
        return False  # another user's
