"""A host made of a root directory and programs that print what real ones were recorded to say."""

import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact.store import Store
from pipeline.doctor.checks import examine, read_situation
from pipeline.doctor.finding import Finding
from pipeline.doctor.machine import Machine
from pipeline.doctor.situation import Needs, Situation

# Long: a loaded machine must not make a fake look as if it hung. Short: one that does.
_PATIENCE_S = 60.0
SHORT_S = 0.5

NEEDS = Needs(
    recipe="fake.toml",
    sources=("demo", "demo"),
    artifacts=2,
    images=("convert", "serve", "train"),
    missing_bytes={"text": 3_000_000, "adapter": 1_000_000},
    settled=True,
    train_vram_bytes=20_000_000_000,
    wants_gpu=False,
)

OS_RELEASES = {
    "debian": 'ID=debian\nVERSION_ID="13"\n',
    "debian-12": 'PRETTY_NAME="Debian GNU/Linux 12"\nID=debian\nVERSION_ID="12"\n',
    "ubuntu": 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n',
    "fedora": "ID=fedora\nVERSION_ID=43\n",
    "rhel": 'ID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.6"\n',
    "arch": "ID=arch\nBUILD_ID=rolling\n",
    "suse": 'ID="opensuse-leap"\nID_LIKE="suse opensuse"\nVERSION_ID="15.6"\n',
    "other": "ID=nixos\n",
}


@dataclass(frozen=True)
class FakeHost:
    """Files below `root`; programs in `bin`, or in a directory of `path` that a test adds."""

    home: Path

    @property
    def root(self) -> Path:
        return self.home / "root"

    @property
    def bin(self) -> Path:
        return self.home / "bin"

    def write(self, path: str, text: str) -> None:
        """Write a file of the host."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def add_program(
        self,
        name: str,
        answers: Mapping[str, str] | str = "",
        *,
        code: int = 0,
        error: str = "",
        directory: Path | None = None,
    ) -> Path:
        """Make a program that prints an answer, or one by the words that it is called with.

        Words are those that the arguments begin with; any other call ends with code 64.
        """
        cases = {"": answers} if isinstance(answers, str) else answers
        lines = ['case "$*" in']
        for words, out in cases.items():
            lines += [
                f"{shlex.quote(words)}*)",
                f"printf %s {shlex.quote(out)}",
                f"printf %s {shlex.quote(error)} >&2",
                f"exit {code} ;;",
            ]
        return self.add_script(name, "\n".join([*lines, "esac", "exit 64"]), directory=directory)

    def add_script(self, name: str, script: str, *, directory: Path | None = None) -> Path:
        """Make a program of a shell script."""
        path = (directory or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    def make_machine(
        self,
        variables: Mapping[str, str] | None = None,
        *,
        user_id: int = 1000,
        path: str = "",
        each_s: float = _PATIENCE_S,
    ) -> Machine:
        """Return the host as its checks see it; `path` stands before the programs on PATH."""
        self.bin.mkdir(parents=True, exist_ok=True)
        search = f"{path}:{self.bin}" if path else str(self.bin)
        return Machine(
            root=self.root,
            variables={"PATH": search, "HOME": str(self.home), "USER": "ada"}
            | dict(variables or {}),
            user_id=user_id,
            each_s=each_s,
            until_s=time.monotonic() + _PATIENCE_S,
        )

    def read(self, machine: Machine | None = None, needs: Needs = NEEDS) -> Situation:
        """Return what the checks judge."""
        return read_situation(machine or self.make_machine(), needs, Store(self.home / "store"))

    def examine(self, machine: Machine | None = None, needs: Needs = NEEDS) -> dict[str, Finding]:
        """Return the findings by check."""
        return {finding.check: finding for finding in examine(self.read(machine, needs))}


def make_docker_info(**changes: Any) -> str:
    """Return what `docker info --format '{{json .}}'` of Docker 26 printed, cut to what is read."""
    plugins = [
        {"Name": "buildx", "Vendor": "Docker Inc.", "Version": "0.13.1+ds1"},
        {"Name": "compose", "Vendor": "Docker Inc.", "Version": "2.26.1-4"},
    ]
    info = {
        "ServerVersion": "26.1.5+dfsg1",
        "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
        "DockerRootDir": "/var/lib/docker",
        "SecurityOptions": ["name=seccomp,profile=builtin"],
        "Runtimes": {"io.containerd.runc.v2": {"path": "runc"}, "runc": {"path": "runc"}},
        "MemoryLimit": True,
        "PidsLimit": True,
        "CDISpecDirs": [],
        "Warnings": None,
        "ClientInfo": {"Version": "26.1.5+dfsg1", "Context": "default", "Plugins": plugins},
    }
    return json.dumps({**info, **changes})


def make_silent_info(told: str) -> str:
    """Return what the same prints where no daemon answers; the exit code is 0."""
    return make_docker_info(
        ServerVersion="",
        OperatingSystem="",
        DockerRootDir="",
        SecurityOptions=None,
        Runtimes=None,
        MemoryLimit=False,
        PidsLimit=False,
        ServerErrors=[told],
    )
