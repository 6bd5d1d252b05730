"""The `venv` engine: stages in pinned virtual environments, in the user's cache directory."""

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact.engine import Engine, Variation
from pipeline.engine import process, venv
from pipeline.engine.environment import read_envs_dir
from pipeline.engine.stage import make_stage_variables, run_stage


@dataclass(frozen=True)
class VenvEngine:
    """Pinned virtual environments below one directory."""

    envs_dir: Path
    name: str = "venv"

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

    def interact(self, image: str, argv: Sequence[str]) -> int:
        prefix = venv.python_of(image, self.envs_dir).parents[1]
        with tempfile.TemporaryDirectory(prefix="tristill-") as work:
            return process.run_in_foreground(
                [prefix / argv[0], *argv[1:]],
                environment=make_stage_variables(image, Path(work)),
            )


def make_engine() -> Engine:
    """Return the engine of this host."""
    return VenvEngine(read_envs_dir())
