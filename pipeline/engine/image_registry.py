"""Images in a registry, each under the tag of its recipe; `docker/images.lock` keeps their digests.

What is pulled counts only once its labels say what its tag says; only then does it get the name
that an engine looks for. Where the lock holds a digest for this very recipe, that is what is
pulled: everybody runs the same bytes, whatever the tag points to by then.
"""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifact.file_lock import file_lock
from pipeline.engine import docker_client, process
from pipeline.engine.container_image import (
    check_labels,
    find_image,
    make_labels,
    make_recipe_digest,
    make_tag,
)
from pipeline.engine.environment import read_envs_dir
from pipeline.engine.image import LOCKS
from pipeline.errors import HostError
from pipeline.log import say

IMAGES_LOCK = LOCKS / "images.lock"


@dataclass(frozen=True, kw_only=True)
class Registry:
    """A registry by host and path (`registry.example/somebody`), and the lock of its images."""

    address: str
    lock: Path = IMAGES_LOCK

    def make_reference(self, name: str) -> str:
        """Return what the image is called there."""
        return f"{self.address.rstrip('/')}/{make_tag(name)}"

    def find(self, name: str) -> bool:
        """Pull the image if the registry has it; return whether it is here now."""
        try:
            self.pull(name)
        except HostError as error:
            say(f"{self.make_reference(name)}: {error.why.splitlines()[-1]}")
            return False
        return True

    def pull(self, name: str) -> None:
        """Fetch the image, check its labels, give it its local tag and note its digest.

        Raises HostError when it is not there or not what its tag says.
        """
        reference = self.make_reference(name)
        locked = _read_lock(self.lock).get(name, {})
        same_recipe = locked.get("recipe") == make_recipe_digest(name)
        if same_recipe and locked["reference"].startswith(f"{reference.rpartition(':')[0]}@"):
            reference = locked["reference"]
        _run("pull", "--quiet", reference)
        (found,) = docker_client.read_images([reference])
        check_labels(found, reference, make_labels(name))
        _run("tag", reference, make_tag(name))
        self._note(name)

    def push(self, name: str) -> None:
        """Send this host's image to the registry and note its digest.

        Raises HostError when there is no such image here, or the registry refuses it.
        """
        tag, reference = make_tag(name), self.make_reference(name)
        if not find_image(name):
            raise HostError(
                "an image cannot be pushed", on=tag, why="it is not here", then="make images"
            )
        _run("tag", tag, reference)
        _run("push", "--quiet", reference)
        self._note(name)

    def _note(self, name: str) -> None:
        """Write the digest that Docker knows the image by in this registry into the lock."""
        reference = self.make_reference(name)
        repository = reference.rpartition(":")[0]
        (image,) = docker_client.read_images([make_tag(name)])
        (pinned,) = [each for each in image["RepoDigests"] if each.startswith(f"{repository}@")]
        entry = {"recipe": make_recipe_digest(name), "reference": pinned}
        with file_lock(read_envs_dir() / "locks" / self.lock.name, waiting_for=str(self.lock)):
            document = _read_lock(self.lock) | {name: entry}
            partial = self.lock.with_suffix(".partial")
            partial.write_text(f"{json.dumps(document, indent=2, sort_keys=True)}\n", "utf-8")
            partial.replace(self.lock)
        say(f"{reference}: {pinned.rpartition('@')[2]}")


def _read_lock(path: Path) -> dict[str, dict[str, str]]:
    with suppress(FileNotFoundError):
        document: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
        return document
    return {}


def _run(verb: str, *words: str) -> None:
    """Run a docker command that may take minutes. Raises HostError with its last words."""
    log_path = read_envs_dir() / "logs" / f"docker-{verb}-{os.getpid()}.log"
    code = process.run(["docker", verb, *words], log_path=log_path, environment=os.environ)
    last = process.read_last_lines(log_path, 3)
    log_path.unlink()
    if code != 0:
        raise HostError(
            f"docker {verb} failed",
            on=words[-1],
            why=last,
            then="mend what it says (docker login? another REGISTRY?), then run this again",
        )
