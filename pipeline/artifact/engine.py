"""An engine runs a stage in an image's environment; nothing else differs between engines."""

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.artifact import process, venv
from pipeline.artifact.environment import read_envs_dir


class Engine(Protocol):
    """What the build needs of an engine."""

    @property
    def name(self) -> str: ...

    def prepare(self, images: Collection[str]) -> None:
        """Make the environments that are missing; HostError when this host cannot."""

    def run(self, image: str, job: dict[str, Any], *, work: Path, log: Path) -> int:
        """Run one job document with `work` as its writable directory; return its exit code."""

    def interact(self, image: str, argv: Sequence[str]) -> int:
        """Run a program of the image on the caller's terminal; return its exit code.

        The program's path is relative to the environment's prefix.
        """


@dataclass(frozen=True)
class VenvEngine:
    """Pinned virtual environments in the user's cache directory."""

    envs_dir: Path
    name: str = "venv"

    def prepare(self, images: Collection[str]) -> None:
        venv.prepare(images, envs_dir=self.envs_dir)

    def run(self, image: str, job: dict[str, Any], *, work: Path, log: Path) -> int:
        return venv.run_stage(image, job=job, work_dir=work, log_path=log, envs_dir=self.envs_dir)

    def interact(self, image: str, argv: Sequence[str]) -> int:
        prefix = venv.python_of(image, self.envs_dir).parents[1]
        with tempfile.TemporaryDirectory(prefix="tristill-") as work:
            return process.run_in_foreground(
                [prefix / argv[0], *argv[1:]],
                environment=venv.make_stage_variables(image, Path(work)),
            )


def make_engine() -> Engine:
    """Return the engine of this host."""
    return VenvEngine(read_envs_dir())
