"""Each image as a virtual environment in the user's cache directory: made once, found by name."""

import shutil
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pipeline.engine import environment as environments
from pipeline.engine import llama, packages
from pipeline.engine.environment import Environment, make_interpreter_document, make_once
from pipeline.engine.image import (
    CPU,
    IMAGES,
    LOCKS,
    Image,
    make_environment_document,
    make_files_document,
)
from pipeline.errors import CapacityError, HostError
from pipeline.log import say

# Made and compiled: the source tree and the objects, which go afterwards, are the most of it.
_LLAMA_BYTES = 1_500_000_000


@dataclass(frozen=True, kw_only=True)
class _Missing:
    name: str
    size_bytes: int
    make: Callable[..., object]


def prepare(images: Collection[str], *, envs_dir: Path) -> None:
    """Make the environments that are missing, in sequence, saying what and how far.

    Raises HostError when this host cannot, CapacityError when the disk is too small.
    """
    for name in sorted(images):
        _require_venv(IMAGES[name])
    missing = _find_missing(images, envs_dir)
    if not missing:
        return
    envs_dir.mkdir(parents=True, exist_ok=True)
    _require_space(envs_dir, sum(each.size_bytes for each in missing))
    for number, each in enumerate(missing, start=1):
        title = f"[{number}/{len(missing)}] {each.name}"
        started = time.monotonic()
        each.make(envs_dir, title=title)
        say(f"{title}: ready, {time.monotonic() - started:.0f} s")


def count_missing_bytes(images: Collection[str], *, envs_dir: Path) -> int:
    """Return about how many bytes `prepare` will need on the disk."""
    return sum(each.size_bytes for each in _find_missing(images, envs_dir))


def _find_missing(images: Collection[str], envs_dir: Path) -> list[_Missing]:
    wanted = [IMAGES[name] for name in sorted(images)]
    compiled = llama.make_environment()
    missing = []
    if any(image.llama for image in wanted) and not compiled.is_complete(envs_dir):
        missing.append(_Missing(name="llama.cpp", size_bytes=_LLAMA_BYTES, make=llama.prepare))
    missing += [
        _Missing(
            name=f"{image.name} environment",
            size_bytes=image.installed_bytes,
            make=partial(_make_image, image),
        )
        for image in wanted
        if not make_environment(image).is_complete(envs_dir)
    ]
    return missing


def _require_venv(image: Image) -> None:
    if image.only_in_containers:
        raise HostError(
            "an image cannot be had as a virtual environment",
            on=f"image {image.name}",
            why="it is compiled for NVIDIA GPUs, in a build stage of its Dockerfile",
            then="make pull REGISTRY=... (or make images), then --engine docker; or set"
            f' accelerator = "{CPU}" in the recipe\'s table [{image.kind}]',
        )


def python_of(image: str, envs_dir: Path) -> Path:
    """Return the interpreter of an image's environment."""
    return make_environment(IMAGES[image]).find(envs_dir) / "bin" / "python"


def site_packages_of(image: str, envs_dir: Path) -> Path:
    """Return where the packages of an image's environment lie."""
    return packages.find_site_packages(make_environment(IMAGES[image]).find(envs_dir))


def make_environment(image: Image) -> Environment:
    """Return the directory of an image's environment."""
    builders = [environments.__file__, packages.__file__, __file__]
    return Environment(
        name=image.name,
        document={
            "image": make_environment_document(image),
            "host": make_interpreter_document(),
            "llama": llama.make_environment().document if image.llama else None,
            "source": make_files_document(*map(Path, builders)),
        },
    )


def _make_image(image: Image, envs_dir: Path, *, title: str) -> Path:
    def make(path: Path, log_path: Path) -> None:
        locks = [LOCKS / lock for lock in image.locks]
        count = sum(map(packages.count_packages, locks))
        say(f"{title}: installing {count} packages ...")
        packages.make_venv(path, locks, title=title, log_path=log_path)
        if image.llama:
            compiled = llama.make_environment().find(envs_dir)
            (path / "llama").symlink_to(Path("..") / compiled.name)
        if image.binding:
            llama.install_binding(path, path / "llama", title=title, log_path=log_path)

    return make_once(make_environment(image), envs_dir, make)


def _require_space(envs_dir: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(envs_dir).free
    if free_bytes < needed_bytes:
        raise CapacityError(
            "not enough disk for the environments",
            on=str(envs_dir),
            why=f"{needed_bytes / 1e9:.1f} GB needed, {free_bytes / 1e9:.1f} GB free",
            then="free some, or move them: export TRISTILL_ENVS=/larger/disk",
        )
