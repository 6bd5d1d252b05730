"""What the checks judge: this host, as values. Reading it and judging it are apart."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.doctor.machine import Machine
from pipeline.errors import TristillError


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What is still to be made, in bytes by name, and what that asks of the host.

    `settled` is False where the user's files have no known digest yet: then it is not known which
    artifacts are sealed, and all count as missing. `damage`: what keeps the store from being read.
    """

    recipe: str
    sources: tuple[str, ...]
    artifacts: int
    images: tuple[str, ...]
    missing_bytes: Mapping[str, int]
    settled: bool
    train_vram_bytes: int
    wants_gpu: bool
    damage: TristillError | None = None


@dataclass(frozen=True, kw_only=True)
class Host:
    """`python`: this one. `interpreter`: the Python for the images, or why there is none.

    `memory_bytes` is what is free here, and in this container when it is one; None: not known.
    """

    python: tuple[int, ...]
    interpreter: str
    interpreter_obstacle: str
    missing_compilers: tuple[str, ...]
    has_make: bool
    memory_bytes: int | None
    shared_memory_bytes: int | None
    now_s: float
    newest_file: tuple[float, str]


@dataclass(frozen=True, kw_only=True)
class Environments:
    """The virtual environments: where they lie, which are whole, what the others need.

    Without an interpreter for the images, nothing is known of them: all count as missing.
    """

    directory: Path
    whole: tuple[str, ...]
    missing: tuple[str, ...]
    needed_bytes: int
    compiled: bool


@dataclass(frozen=True, kw_only=True)
class Place:
    """A file system: of a directory, or of the nearest one above it that exists."""

    path: Path
    exists: bool
    writable: bool
    device: int
    free_bytes: int
    free_files: int | None
    locks: bool | None


@dataclass(frozen=True, kw_only=True)
class Client:
    """A `docker` on PATH. `plugins`: their versions by name; None when it did not say.

    `daemon` is what the daemon says of itself; empty when none answers, which `obstacle` explains.
    """

    path: Path
    is_podman: bool
    plugins: Mapping[str, str] | None
    daemon: Mapping[str, Any]
    obstacle: str

    @property
    def is_snap(self) -> bool:
        return "snap" in self.path.parts


@dataclass(frozen=True, kw_only=True)
class Docker:
    """The clients in the order of PATH: the first is what `docker` calls.

    `tags`: this checkout's image tags by name, those of them that are here in `present`. No tags:
    it is not known which are here.
    """

    clients: tuple[Client, ...]
    standalone_compose: str
    tags: Mapping[str, str]
    present: frozenset[str]

    @property
    def client(self) -> Client | None:
        return self.clients[0] if self.clients else None

    @property
    def daemon(self) -> Mapping[str, Any]:
        """What the daemon says of itself; empty when none answers."""
        return self.clients[0].daemon if self.clients else {}


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One NVIDIA GPU. None: the driver does not say."""

    name: str
    driver: str
    capability: tuple[int, int] | None
    total_bytes: int | None
    free_bytes: int | None


@dataclass(frozen=True, kw_only=True)
class Nvidia:
    """The GPUs, or why the driver tells of none.

    `is_here`: there is one, driver or not. `has_tool`: nvidia-smi, which comes with the driver.
    `toolkit`: its version, "" for none. `cdi`: path and text of each specification.
    """

    is_here: bool
    has_tool: bool
    gpus: tuple[Gpu, ...]
    obstacle: str
    toolkit: str
    cdi: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Situation:
    """All of it."""

    machine: Machine
    needs: Needs
    host: Host
    environments: Environments
    environments_place: Place
    store_place: Place
    docker: Docker
    nvidia: Nvidia
