"""The `here` engine: this host is itself a container of the image, as rented GPUs often are.

The image says which environment it holds, by its digest, in TRISTILL_ENVIRONMENT; a stage that
needs another one is refused.
"""

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact.engine import Variation
from pipeline.artifact.key import make_digest
from pipeline.engine.image import IMAGES, make_environment_document
from pipeline.engine.layout import CHAT_PAGE, PREFIX
from pipeline.engine.stage import run_program, run_stage
from pipeline.errors import HostError


@dataclass(frozen=True, kw_only=True)
class HereEngine:
    """The environment that this very process runs in."""

    prefix: Path = Path(PREFIX)
    name: str = "here"
    listens_on: str = "127.0.0.1"

    @property
    def chat_page(self) -> str:
        return str(CHAT_PAGE) if Path(CHAT_PAGE).is_dir() else ""

    def count_missing_bytes(self, images: Collection[str]) -> tuple[Path, int]:
        return self.prefix, 0

    def prepare(self, images: Collection[str]) -> None:
        """Raise HostError unless this is a container of each of the images."""
        for image in sorted(images):
            _require_environment(image)

    def run(
        self,
        image: str,
        job: dict[str, Any],
        *,
        work: Path,
        log: Path,
        variation: Variation | None = None,
    ) -> int:
        python = self.prefix / "bin" / "python"
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
        return run_program(self.prefix, image, argv, gpus=gpus, before_end=before_end)


def _require_environment(image: str) -> None:
    wanted = make_digest(make_environment_document(IMAGES[image]))
    found = os.environ.get("TRISTILL_ENVIRONMENT")
    if found == wanted:
        return
    if found is None:
        why = "TRISTILL_ENVIRONMENT is not set: this is no container of ours, or a login to one"
        then = "in a login, first: export $(xargs -0 -n 1 </proc/1/environ | grep ^TRISTILL_)"
    else:
        name = os.environ.get("TRISTILL_IMAGE", "an unknown one")
        why = f"TRISTILL_ENVIRONMENT is {found}: image {name}"
        then = f"run this in a container of image {image} of this checkout"
    raise HostError(
        "this host is not the image that the work needs",
        on=f"image {image}, environment {wanted}",
        why=why,
        then=f"{then}; or name another engine: --engine docker, --engine venv",
    )
