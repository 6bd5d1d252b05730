"""The `venv` engine: stages in pinned virtual environments, in the user's cache directory."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact.engine import Engine, Variation
from pipeline.engine import venv
from pipeline.engine.environment import read_envs_dir
from pipeline.engine.stage import run_program, run_stage


@dataclass(frozen=True)
class VenvEngine:
    """Pinned virtual environments below one directory."""

    envs_dir: Path
    name: str = "venv"
    listens_on: str = "127.0.0.1"
    chat_page: str = ""

    def count_missing_bytes(self, images: Collection[str]) -> tuple[Path, int]:
        return self.envs_dir, venv.count_missing_bytes(images, envs_dir=self.envs_dir)

    def prepare(self, images: Collection[str]) -> None:
        venv.prepare(images, envs_dir=self.envs_dir)

    def run(
        self,
        image: str,
        job: dict[str, Any],
        *,
        work: Path,
        log: Path,
        variation: Variation | None = None,
    ) -> int:
        python = venv.python_of(image, self.envs_dir)
        return run_stage(python, image, job, work=work, log=log, variation=variation)

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
        prefix = venv.python_of(image, self.envs_dir).parents[1]
        return run_program(prefix, image, argv, gpus=gpus, before_end=before_end)


def make_engine() -> Engine:
    """Return the engine over this user's environments."""
    return VenvEngine(read_envs_dir())
