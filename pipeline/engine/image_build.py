"""Make an image once: found by its tag, else fetched where a registry has it, else built.

Two calls make one image: who comes second waits at a kernel lock and finds it made. What the caller
has configured for pip and for the network reaches the build as secrets and mounts, never as layers.
"""

import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifact.file_lock import file_lock
from pipeline.artifact.key import REPOSITORY
from pipeline.engine import docker_client, pip_settings, process
from pipeline.engine.container_image import (
    find_dockerfile,
    find_image,
    list_sources,
    make_environment_digest,
    make_recipe_digest,
    make_tag,
)
from pipeline.engine.environment import read_envs_dir
from pipeline.engine.image import IMAGES, LLAMA_BUILD_LOCK, LLAMA_LOCK, LOCKS, Image
from pipeline.engine.image_registry import Registry
from pipeline.errors import CapacityError, HostError
from pipeline.log import say

SOURCE_DATE_EPOCH = 1763683200
"""The one time in an image; the Dockerfiles' own default is the same."""

# The image, the build stages that it comes from, and what pip and the compiler keep.
_TIMES_INSTALLED = 3
_LLAMA_BYTES = 3_000_000_000

_PROXIES = ("all_proxy", "ftp_proxy", "http_proxy", "https_proxy", "no_proxy")
_STEP = re.compile(r"#\d+ (\[.+? \d+/\d+\] \w+ .{0,50})")
_TALK = re.compile(r"#\d+ [\d.]+ ((?:llama\.cpp|convert|serve|train): .+)")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What to build: an image, and on which base if not the pinned one."""

    name: str
    base: str = ""

    @property
    def tag(self) -> str:
        return make_tag(self.name)


def provide(variant: Variant, registry: Registry | None) -> None:
    """Make sure that this host's Docker has the image.

    Raises HostError when there is no Docker or the build fails.
    """
    if find_image(variant.name):
        say(f"{variant.tag}: here")
        return
    lock_name = variant.tag.replace(":", "-")
    with file_lock(read_envs_dir() / "locks" / lock_name, waiting_for=f"image {variant.tag}"):
        if find_image(variant.name):
            return
        if registry and registry.find(variant.name):
            return
        build(variant, tag=variant.tag)


def build(variant: Variant, *, tag: str, options: Sequence[str] = ()) -> None:
    """Build the image under the tag, whatever is here already."""
    _require_space(IMAGES[variant.name])
    log_path = read_envs_dir() / "logs" / f"{tag.replace(':', '-')}.log"
    log_path.unlink(missing_ok=True)
    started = time.monotonic()
    say(f"{tag}: building; log in {log_path}")
    with _carry(variant) as carried:
        argv = make_build_argv(variant, tag=tag, options=[*carried, *options])
        code = process.run(argv, log_path=log_path, environment=os.environ, on_line=_show)
    if code != 0:
        raise HostError(
            f"image {variant.name} could not be built",
            on=tag,
            why=process.read_last_lines(log_path),
            then=f"read {log_path}; python -m pipeline doctor says what Docker lacks",
        )
    say(f"{tag}: built, {time.monotonic() - started:.0f} s")


def _require_space(image: Image) -> None:
    """Raise CapacityError where Docker's disk, if this host sees it, cannot hold the build."""
    place = docker_client.read_daemon().data_root
    if not place.is_dir():
        return
    needed_bytes = _TIMES_INSTALLED * image.installed_bytes + (_LLAMA_BYTES if image.llama else 0)
    free_bytes = shutil.disk_usage(place).free
    if free_bytes < needed_bytes:
        raise CapacityError(
            f"not enough disk to build image {image.name}",
            on=str(place),
            why=f"{needed_bytes / 1e9:.1f} GB needed, {free_bytes / 1e9:.1f} GB free",
            then="docker system prune (removes what no container uses), then run this again",
        )


def make_build_argv(variant: Variant, *, tag: str, options: Sequence[str]) -> list[str]:
    """Return the command that builds the image from the repository's Dockerfile."""
    values = {
        "ACCEL": IMAGES[variant.name].accelerator,
        "ENVIRONMENT": make_environment_digest(variant.name),
        "RECIPE": make_recipe_digest(variant.name),
        "SOURCE_DATE_EPOCH": str(SOURCE_DATE_EPOCH),
    }
    if variant.base:
        values["BASE_IMAGE"] = variant.base
    return [
        *("docker", "build", "--progress", "plain", "--network", "host", "--provenance", "false"),
        *("--file", str(find_dockerfile(variant.name)), "--tag", tag),
        *(word for pair in values.items() for word in ("--build-arg", "=".join(pair))),
        *options,
        str(REPOSITORY),
    ]


@contextmanager
def _carry(variant: Variant) -> Iterator[list[str]]:
    """Yield the options that bring the caller's settings into the build."""
    settings = pip_settings.read_settings(os.environ)
    certificates = pip_settings.find_certificates(settings, os.environ)
    # Docker knows these by name, and keeps their values out of the image.
    names = [name for each in _PROXIES for name in (each, each.upper()) if name in os.environ]
    options = [word for name in names for word in ("--build-arg", name)]
    with tempfile.TemporaryDirectory(prefix="tristill-") as scratch:
        contexts = _gather(variant, settings, Path(scratch))
        options += [
            word for name, path in contexts for word in ("--build-context", f"{name}={path}")
        ]
        configuration = Path(scratch) / "pip.conf"
        configuration.write_text(
            pip_settings.make_configuration(
                settings, with_wheels=bool(contexts), with_certificates=certificates is not None
            ),
            encoding="utf-8",
        )
        npmrc = Path(os.environ.get("NPM_CONFIG_USERCONFIG") or Path.home() / ".npmrc")
        secrets = {"pip_conf": configuration, "ca": certificates, "npmrc": npmrc}
        for name, file in secrets.items():
            if file and file.is_file():
                options += ["--secret", f"id={name},src={file}"]
        yield options


def _gather(variant: Variant, settings: dict[str, str], scratch: Path) -> list[tuple[str, Path]]:
    """Return the folders of this machine's wheels, by the name of the stage they take the place
    of. llama.cpp has its own: another package's change must not compile it anew."""
    locks = set(list_locks(variant))
    of_llama = locks & {LOCKS / LLAMA_LOCK, LOCKS / LLAMA_BUILD_LOCK}
    return [
        (name, scratch / name)
        for name, named in (("llama-wheels", of_llama), ("wheels", locks - of_llama))
        if pip_settings.gather_wheels(settings, sorted(named), scratch / name)
    ]


def list_locks(variant: Variant) -> list[Path]:
    """Return the locks that the image's Dockerfile mounts."""
    dockerfile = find_dockerfile(variant.name).read_text(encoding="utf-8")
    sources = list_sources(dockerfile, IMAGES[variant.name].accelerator)
    return [REPOSITORY / source for source in sources if source.endswith(".lock")]


def _show(line: str) -> None:
    if told := _STEP.match(line) or _TALK.match(line):
        say(f"  {told[1]}")
