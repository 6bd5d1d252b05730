"""Docker's client and its plugins, and this checkout's images.

Nothing here is a problem: without Docker, virtual environments do the same.
"""

import json
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.doctor.finding import Finding, ok, problem, warning
from pipeline.doctor.machine import Answer, Machine
from pipeline.doctor.situation import Client, Docker, Situation
from pipeline.doctor.version import parse_version
from pipeline.engine.container_image import make_tag
from pipeline.engine.image import IMAGES
from pipeline.errors import TristillError

_INFO = ("info", "--format", "{{json .}}")
_LIST = ("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=tristill-*")
_OLDEST_COMPOSE = (1, 29, 2)
_WITHOUT = "builds run in virtual environments (engine venv) without it"


def read_docker(machine: Machine, images: Collection[str]) -> Docker:
    """Return what the clients and the daemon say, and which of the images are here.

    Nothing is pulled, built or started.
    """
    paths = machine.find_programs("docker")
    with ThreadPoolExecutor() as pool:
        compose = pool.submit(_read_standalone_compose, machine)
        clients = tuple(pool.map(partial(_read_client, machine), paths))
    tags, listed = dict[str, str](), list[str]()
    if clients and clients[0].daemon:
        answer = machine.ask([paths[0], *_LIST])
        if answer.code == 0:
            tags, listed = _make_tags(images), answer.out.split()
    return Docker(
        clients=clients,
        standalone_compose=compose.result(),
        tags=tags,
        present=frozenset(tags.values()) & frozenset(listed),
    )


def _read_client(machine: Machine, path: Path) -> Client:
    answer = machine.ask([path, *_INFO])
    document = _parse_object(answer.out)
    return Client(
        path=path,
        is_podman="host" in document,
        plugins=_parse_plugins(document),
        daemon=document if document.get("ServerVersion") else {},
        obstacle="" if document.get("ServerVersion") else _find_obstacle(document, answer),
    )


def _parse_plugins(document: Mapping[str, Any]) -> Mapping[str, str] | None:
    """Return the version of each plugin that runs; None when the client did not say."""
    if "ClientInfo" not in document:
        return None
    plugins = document["ClientInfo"].get("Plugins") or []
    return {each["Name"]: each["Version"] for each in plugins if each.get("Version")}


def _find_obstacle(document: Mapping[str, Any], answer: Answer) -> str:
    """Return why no daemon answers, in Docker's words."""
    told = "; ".join(document.get("ServerErrors") or [])
    return told or answer.last_error or "it says nothing"


def _parse_object(text: str) -> dict[str, Any]:
    with suppress(ValueError):
        document = json.loads(text)
        if isinstance(document, dict):
            return document
    return {}


def _read_standalone_compose(machine: Machine) -> str:
    """Return the version of `docker-compose`; "" when there is none that runs."""
    path = machine.find_program("docker-compose")
    return machine.ask([path, "version", "--short"]).out.strip() if path else ""


def _make_tags(images: Collection[str]) -> dict[str, str]:
    """Return the tag of each of the images whose Dockerfile and locks are in this checkout."""
    tags = {}
    for name in images:
        with suppress(OSError, TristillError):
            tags[name] = make_tag(name)
    return tags


def check_client(seen: Situation) -> Finding:
    """A Docker client is on PATH."""
    client = seen.docker.client
    if client is not None:
        return ok("docker", what=f"docker is {client.path}")
    return warning(
        "docker",
        what="no docker on PATH",
        why=f"no containers: {_WITHOUT}",
        fix=seen.machine.find_fix("docker"),
    )


def check_buildx(seen: Situation) -> Finding | None:
    """The client that is called first has the plugin that builds images."""
    return _check_plugin(seen, "buildx", why="images are built with it; all else goes without")


def check_compose(seen: Situation) -> Finding | None:
    """Compose is here, as the client's plugin (v2) or alone."""
    client = seen.docker.client
    alone = seen.docker.standalone_compose
    if client is None:
        return None
    if "compose" in (client.plugins or {}) or not parse_version(alone):
        return _check_plugin(seen, "compose", why="compose.yaml needs it; builds do not")
    if parse_version(alone) >= _OLDEST_COMPOSE:
        return ok("compose", what=f"docker-compose {alone}")
    return warning(
        "compose",
        what=f"docker-compose {alone} is too old",
        why="compose.yaml is written for 1.29.2 and for 2",
        fix=seen.machine.find_fix("compose"),
    )


def _check_plugin(seen: Situation, name: str, *, why: str) -> Finding | None:
    first, *others = seen.docker.clients or (None,)
    if first is None or first.plugins is None:
        return None
    if name in first.plugins:
        return ok(name, what=f"{name} {first.plugins[name]}")
    for other in others:
        if other is not None and other.plugins and name in other.plugins:
            return warning(
                name,
                what=f"{first.path}, which is called first, has no {name}",
                why=f"{other.path} has {name} {other.plugins[name]}; {why}",
                fix=f'export PATH="{other.path.parent}:$PATH"',
            )
    return warning(
        name,
        what=f"docker has no {name} plugin",
        why=why,
        fix=seen.machine.find_fix(name),
    )


def check_images(seen: Situation) -> Finding | None:
    """This checkout's images are here: then a build runs in them."""
    docker = seen.docker
    only = [name for name in seen.needs.images if IMAGES[name].only_in_containers]
    if not docker.daemon and only and "TRISTILL_IMAGE" not in seen.machine.variables:
        return problem(
            "images",
            what=f"the recipe needs image {only[0]}",
            why="it has no other form than a container's, and no Docker answers",
            fix=f'start Docker, or set [{IMAGES[only[0]].kind}] accelerator = "cpu" in the recipe',
        )
    if not docker.daemon:
        return None
    missing = [name for name, tag in docker.tags.items() if tag not in docker.present]
    if not docker.tags:
        return ok("images", what="which of this checkout's images are here is not known")
    if not missing:
        return ok("images", what=f"{', '.join(docker.tags)} are here")
    compiled = [name for name in only if name in missing]
    told = problem if compiled else warning
    return told(
        "images",
        what=f"this checkout's images of {', '.join(missing)} are not here",
        why=f"the recipe needs them, and {compiled[0]} has no other form than a container's"
        if compiled
        else "until they are, builds run in virtual environments (engine venv)",
        fix="make images (or make pull REGISTRY=...)",
    )


def check_engine(seen: Situation) -> Finding:
    """What a build will run in when none is named."""
    if runs_in_docker(seen):
        return ok("engine", what="builds run in containers (engine docker)")
    if image := seen.machine.variables.get("TRISTILL_IMAGE"):
        return ok("engine", what=f"this host is image {image}: --engine here runs its stages")
    return ok("engine", what="builds run in virtual environments (engine venv)")


def runs_in_docker(seen: Situation) -> bool:
    """Return whether a build takes the docker engine: a daemon and all images are there."""
    docker = seen.docker
    return set(docker.tags) == set(seen.needs.images) and (
        set(docker.tags.values()) == docker.present
    )
