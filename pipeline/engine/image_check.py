"""Build an image twice from scratch and compare what is in the two: every file of every layer, its
mode, owner, time, link and bytes, and the configuration.

Equal image ids are equal images, since an id is the hash of all that. When they differ, the layers
are read to say where.
"""

import hashlib
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any

from pipeline.engine import docker_client
from pipeline.engine.image import IMAGES
from pipeline.engine.image_build import Variant, build
from pipeline.errors import DifferenceError

_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Entry:
    """All that a layer says of one path."""

    kind: str
    mode: str
    owner: str
    mtime: int
    link: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Contents:
    """An image: its configuration and its paths, each with its layer's number."""

    config: dict[str, Any]
    entries: dict[str, Entry]


def check(variant: Variant) -> str:
    """Build the image twice with no cache; return what was compared.

    Raises DifferenceError when the two differ.
    """
    tags = [f"tristill-check-{variant.name}:{number}" for number in (1, 2)]
    # The compiler's cache would make the second build a copy of the first.
    fresh = ["--no-cache"]
    if IMAGES[variant.name].llama:
        fresh += ["--build-arg", "CCACHE_DISABLE=1"]
    for tag in tags:
        build(variant, tag=tag, options=fresh)
    images = [docker_client.read_images([tag])[0] for tag in tags]
    if images[0]["Id"] == images[1]["Id"]:
        _run_docker("image", "rm", *tags)
        return f"{variant.tag}: two builds, one image: {images[0]['Id']}\n"
    differences = list(compare(*map(_read_image, tags)))
    shown = "\n        ".join(differences[:_SHOWN])
    raise DifferenceError(
        f"image {variant.name} built twice is not the same",
        on=" and ".join(tags),
        why=f"{len(differences)} differences:\n        {shown}",
        then="find what wrote these; the two images are kept for that",
    )


def compare(first: Contents, second: Contents) -> Iterator[str]:
    """Yield what differs, one line per path or field of the configuration."""
    for key in sorted(first.config.keys() | second.config.keys()):
        if first.config.get(key) != second.config.get(key):
            yield f"configuration: {key}"
    for path in sorted(first.entries.keys() | second.entries.keys()):
        one, other = first.entries.get(path), second.entries.get(path)
        if one is None or other is None:
            yield f"{path}: only in the {'second' if one is None else 'first'}"
        elif one != other:
            fields = [name for name, value in vars(one).items() if value != vars(other)[name]]
            yield f"{path}: {', '.join(fields)}"


def _read_image(tag: str) -> Contents:
    """Return what `docker save` writes of an image."""
    with tempfile.TemporaryFile(prefix="tristill-") as saved:
        _run_docker("save", tag, stdout=saved)
        saved.seek(0)
        return read_contents(saved)


def _run_docker(*words: str, stdout: IO[bytes] | int = subprocess.DEVNULL) -> None:
    environment = docker_client.make_client_environment()
    subprocess.run(["docker", *words], stdout=stdout, env=environment, check=True)


def read_contents(saved: IO[bytes]) -> Contents:
    """Return the contents of an image as `docker save` wrote it."""
    with tarfile.open(fileobj=saved) as archive:
        (manifest,) = json.load(_open(archive, "manifest.json"))
        config = json.load(_open(archive, manifest["Config"]))
        del config["rootfs"]
        entries = {}
        for number, name in enumerate(manifest["Layers"]):
            for path, entry in read_layer(_open(archive, name)):
                entries[f"layer {number}: /{path}"] = entry
    return Contents(config=config, entries=entries)


def _open(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    file = archive.extractfile(name)
    assert file is not None
    return file


def read_layer(file: IO[bytes]) -> Iterator[tuple[str, Entry]]:
    """Yield each path of a layer and what the layer says of it."""
    with tarfile.open(fileobj=file) as layer:
        for member in layer:
            content = layer.extractfile(member) if member.isreg() else None
            yield (
                member.name,
                Entry(
                    kind=member.type.decode(),
                    mode=f"{member.mode:o}",
                    owner=f"{member.uid}:{member.gid}",
                    mtime=int(member.mtime),
                    link=member.linkname,
                    sha256=_hash(content) if content else "",
                ),
            )


def _hash(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()
