"""The `venv` engine: each image is a virtual environment in the user's cache directory.

`prepare` makes what is missing; `run_stage` runs one job in an image's environment, with nothing of
the caller's variables. A stage cannot tell that it is not in a container.
"""

import json
import shutil
import sys
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.artifact import environment as environments
from pipeline.artifact import llama, packages, process
from pipeline.artifact.environment import Environment, make_interpreter_document, make_once
from pipeline.artifact.image import (
    IMAGES,
    LOCKS,
    Image,
    make_environment_document,
    make_files_document,
)
from pipeline.artifact.key import REPOSITORY
from pipeline.errors import CapacityError
from pipeline.log import say

# Made and compiled: the source tree and the objects, which go afterwards, are the most of it.
_LLAMA_BYTES = 1_500_000_000


def prepare(images: Collection[str], *, envs_dir: Path) -> None:
    """Make the environments that are missing, in sequence, saying what and how far.

    Raises HostError when this host cannot, CapacityError when the disk is too small.
    """
    wanted = [IMAGES[name] for name in sorted(images)]
    llama_wanted = any(image.llama for image in wanted)
    steps: list[tuple[str, int, Callable[..., object]]] = []
    if llama_wanted and not llama.make_environment().is_complete(envs_dir):
        steps.append(("llama.cpp", _LLAMA_BYTES, llama.prepare))
    steps += [
        (f"{image.name} environment", image.installed_bytes, partial(_make_image, image))
        for image in wanted
        if not make_environment(image).is_complete(envs_dir)
    ]
    if not steps:
        return
    envs_dir.mkdir(parents=True, exist_ok=True)
    _require_space(envs_dir, sum(size for _, size, _ in steps))
    for number, (name, _, make) in enumerate(steps, start=1):
        title = f"[{number}/{len(steps)}] {name}"
        started = time.monotonic()
        make(envs_dir, title=title)
        say(f"{title}: ready, {time.monotonic() - started:.0f} s")


def run_stage(
    image: str, *, job: dict[str, Any], work_dir: Path, log_path: Path, envs_dir: Path
) -> int:
    """Run one job document in the image's environment; return its exit code.

    Its talk goes to standard error and to the log. KeyboardInterrupt ends the stage and goes on.
    """
    document_path = work_dir / "job.json"
    document_path.write_text(json.dumps(job, indent=2, sort_keys=True), encoding="utf-8")
    return process.run(
        [python_of(image, envs_dir), "-m", "pipeline.job", document_path],
        log_path=log_path,
        environment=make_stage_variables(image, work_dir),
        cwd=work_dir,
        on_line=_show_line,
    )


def python_of(image: str, envs_dir: Path) -> Path:
    """Return the interpreter of an image's environment."""
    return make_environment(IMAGES[image]).find(envs_dir) / "bin" / "python"


def site_packages_of(image: str, envs_dir: Path) -> Path:
    """Return where the packages of an image's environment lie."""
    return packages.find_site_packages(make_environment(IMAGES[image]).find(envs_dir))


def make_stage_variables(image: str, work_dir: Path) -> dict[str, str]:
    """Return all variables that a stage sees; its home and scratch lie in `work_dir`."""
    scratch = work_dir / "tmp"
    scratch.mkdir(exist_ok=True)
    return {
        **IMAGES[image].variables,
        "HOME": str(work_dir),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(REPOSITORY),
        "TMPDIR": str(scratch),
        "USER": "tristill",
    }


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


def _show_line(line: str) -> None:
    sys.stderr.write(f"{line}\n")
