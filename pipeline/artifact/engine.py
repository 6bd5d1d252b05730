"""What the build needs of an engine, which runs a stage in an image's environment.

Nothing else differs between engines; each lies in `pipeline/engine/`.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True)
class Variation:
    """What a rebuild changes around a stage, beyond the directory: none of it may reach the bytes.

    `variables` replace the image's own. `umask` is that of the stage's process.
    """

    variables: Mapping[str, str]
    umask: int


class Engine(Protocol):
    """Runs stages and programs of an image."""

    @property
    def name(self) -> str: ...

    @property
    def listens_on(self) -> str:
        """The address that a server of an image binds so that this host's loopback reaches it."""

    @property
    def chat_page(self) -> str:
        """The directory of the server's own chat page, as a program of the image sees it; "" where
        there is none."""

    def count_missing_bytes(self, images: Collection[str]) -> tuple[Path, int]:
        """Return where `prepare` writes, and about how many bytes it will need there."""

    def prepare(self, images: Collection[str]) -> None:
        """Make the environments that are missing; HostError when this host cannot."""

    def run(
        self,
        image: str,
        job: dict[str, Any],
        *,
        work: Path,
        log: Path,
        variation: Variation | None = None,
    ) -> int:
        """Run one job document with `work` as its writable directory; return its exit code.

        It has a network, and the caller's way to the hub, only where the document says "network".
        """

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
        """Run a program of the image on the caller's terminal; return its exit code.

        The program's path is relative to the environment's prefix. `inputs` are the files and
        directories of this host that it reads, each a word of `argv`, or its beginning up to a
        colon; `port` is the one at which it is reached through this host's `address`, 0 for none;
        `gpus` shows it the host's GPUs. With `before_end` it is a server: it reads nothing, and
        that is called before it is interrupted.
        """
