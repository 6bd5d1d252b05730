"""An engine runs a stage in an image's environment; nothing else differs between engines."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.artifact import venv
from pipeline.artifact.environment import read_envs_dir


class Engine(Protocol):
    """What the build needs of an engine."""

    @property
    def name(self) -> str: ...

    def prepare(self, images: Collection[str]) -> None:
        """Make the environments that are missing; HostError when this host cannot."""

    def run(self, image: str, job: dict[str, Any], *, work: Path, log: Path) -> int:
        """Run one job document with `work` as its writable directory; return its exit code."""


@dataclass(frozen=True)
class VenvEngine:
    """Pinned virtual environments in the user's cache directory."""

    envs_dir: Path
    name: str = "venv"

    def prepare(self, images: Collection[str]) -> None:
        venv.prepare(images, envs_dir=self.envs_dir)

    def run(self, image: str, job: dict[str, Any], *, work: Path, log: Path) -> int:
        return venv.run_stage(image, job=job, work_dir=work, log_path=log, envs_dir=self.envs_dir)


def make_engine() -> Engine:
    """Return the engine of this host."""
    return VenvEngine(read_envs_dir())
