"""Which engine runs the stages: the one that is named, else the best that is ready on this host."""

import shutil
from collections.abc import Collection

from pipeline.artifact.engine import Engine
from pipeline.engine import container_image, venv_engine
from pipeline.engine.docker_engine import DockerEngine
from pipeline.engine.here_engine import HereEngine
from pipeline.errors import HostError, UsageError
from pipeline.log import say
from pipeline.recipe.recipe import Limits


def make_engine(name: str = "", *, images: Collection[str], limits: Limits | None = None) -> Engine:
    """Return the engine of that name: docker, venv or here.

    Without a name: docker where a daemon answers and all the images are there, else venv. `limits`
    bound what runs in a container. Raises UsageError for another name.
    """
    limits = limits or Limits()
    match name or _choose(images):
        case "docker":
            return DockerEngine(memory_gb=limits.memory_gb, pids=limits.pids)
        case "venv":
            return venv_engine.make_engine()
        case "here":
            return HereEngine()
    raise UsageError(
        "there is no such engine",
        on=name,
        why="the engines are docker, venv and here",
        then="name one of them, or none: the best that is ready is taken",
    )


def _choose(images: Collection[str]) -> str:
    if shutil.which("docker") is None:
        return "venv"
    try:
        missing = [name for name in images if container_image.find_image(name) is None]
    except HostError:
        return "venv"
    if not missing:
        return "docker"
    say(
        f"engine venv: Docker answers, but {len(missing)} of the {len(images)} images"
        " are not here (make images, or make pull REGISTRY=...)"
    )
    return "venv"
