"""A container image by its recipe: the tag says what it was made from, the labels confirm it.

The recipe's digest covers the environment's document, the Dockerfile, every file that the
Dockerfile takes from the repository, the accelerator and the pinned base. Two checkouts with the
same recipe share an image, and an image that exists is never built again.
"""

import hashlib
import json
import re
from pathlib import Path

from pipeline.artifact.key import REPOSITORY, make_digest
from pipeline.artifact.rule import Digest
from pipeline.engine import docker_client
from pipeline.engine.image import IMAGES, LOCKS, make_environment_document
from pipeline.errors import HostError

# In the order of building: convert and serve share what takes longest.
NAMES = ("convert", "serve", "train", "train-cuda", "serve-cuda")
# The size of each lock's wheels, where `make locks` has asked.
WHEELS = LOCKS / "wheels.json"
RECIPE_LABEL = "io.tristill.recipe"
ENVIRONMENT_LABEL = "io.tristill.environment"
ACCELERATOR_LABEL = "io.tristill.accelerator"

# They only talk: what they say is not in an image.
_TALK = frozenset({"pipeline/errors.py", "pipeline/log.py"})
_BASE = re.compile(r"^ARG BASE_IMAGE=(\S+)$", re.MULTILINE)
_MOUNT = re.compile(r"--mount=type=bind,source=([^\s,]+),")


def find_dockerfile(name: str) -> Path:
    """Return the image's Dockerfile; its variants share one."""
    return REPOSITORY / f"Dockerfile.{IMAGES[name].kind}"


def make_tag(name: str) -> str:
    """Return the one tag of the image: its recipe's digest is in it."""
    image = IMAGES[name]
    return f"tristill-{image.kind}:{image.accelerator}-{make_recipe_digest(name)[:16]}"


def make_recipe_digest(name: str) -> Digest:
    """Return the digest of everything that decides what the build makes."""
    return make_digest(make_recipe_document(name))


def make_environment_digest(name: str) -> Digest:
    """Return the digest that artifact keys hold, whichever engine runs the stage."""
    return make_digest(make_environment_document(IMAGES[name]))


def make_labels(name: str) -> dict[str, str]:
    """Return the labels that tell what an image was made from."""
    return {
        ACCELERATOR_LABEL: IMAGES[name].accelerator,
        ENVIRONMENT_LABEL: make_environment_digest(name),
        RECIPE_LABEL: make_recipe_digest(name),
    }


def make_recipe_document(name: str) -> dict[str, object]:
    """Return everything that decides what the build makes, for hashing and for reading.

    What Debian's mirrors hold on the day of the build is not in it.
    """
    dockerfile = find_dockerfile(name).read_text(encoding="utf-8")
    bases = _BASE.findall(dockerfile)
    return {
        "accelerator": IMAGES[name].accelerator,
        "base": bases[0] if bases else None,
        "dockerfile": hashlib.sha256(dockerfile.encode()).hexdigest(),
        "environment": make_environment_document(IMAGES[name]),
        "sources": {
            path: hashlib.sha256((REPOSITORY / path).read_bytes()).hexdigest()
            for path in list_sources(dockerfile, IMAGES[name].accelerator)
            if path not in _TALK
        },
    }


def list_sources(dockerfile: str, accelerator: str) -> list[str]:
    """Return the repository's files that a Dockerfile's build stages see."""
    named = {source.replace("${ACCEL}", accelerator) for source in _MOUNT.findall(dockerfile)}
    return [
        path
        for path in _list_context()
        if any(path == source or path.startswith(f"{source}/") for source in named)
    ]


def _list_context() -> list[str]:
    """Return the files that .dockerignore, which refuses all others, lets into a build."""
    lines = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = [line[1:].strip().rstrip("/") for line in lines if line.startswith("!")]
    paths = {path for pattern in allowed for path in REPOSITORY.glob(pattern)}
    paths |= {below for path in paths if path.is_dir() for below in path.rglob("*")}
    return sorted(str(path.relative_to(REPOSITORY)) for path in paths if path.is_file())


def sum_wheel_bytes(name: str) -> int | None:
    """Return the bytes of the wheels that the image is made from; None where they are not known."""
    sizes: dict[str, dict[str, int]] = json.loads(WHEELS.read_text(encoding="utf-8"))
    locks = IMAGES[name].locks
    return sum(sizes[lock]["bytes"] for lock in locks) if set(locks) <= sizes.keys() else None


def find_image(name: str) -> str | None:
    """Return the id of this host's image, None when there is none.

    Raises HostError when no daemon answers, or when the image under the tag is another.
    """
    tag = make_tag(name)
    found = docker_client.read_images([tag])
    if not found:
        return None
    check_labels(found[0], tag, make_labels(name))
    return str(found[0]["Id"])


def check_labels(document: dict[str, object], reference: str, wanted: dict[str, str]) -> None:
    """Raise HostError unless the image carries the labels."""
    config = document.get("Config")
    labels = (config.get("Labels") if isinstance(config, dict) else None) or {}
    wrong = [label for label, value in wanted.items() if labels.get(label) != value]
    if wrong:
        raise HostError(
            "an image is not what its tag says",
            on=reference,
            why="; ".join(
                f"{label} is {labels.get(label, 'missing')}, not {wanted[label]}" for label in wrong
            ),
            then=f"docker image rm {reference}; then run this again",
        )
