"""Containers of the image serve, for tests: started, asked over the loopback, always removed."""

import json
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.engine import docker_client
from pipeline.engine.container_image import find_image, make_tag
from pipeline.engine.image_build import Variant, provide

_BASE = "tristill-base:bookworm"
_READY_S = 120.0


@dataclass(frozen=True)
class Container:
    """A running container, by its name."""

    name: str

    @property
    def url(self) -> str:
        """The base URL of the server, as this host's loopback reaches it."""
        return f"http://{ask_docker('port', self.name, '8080/tcp').splitlines()[0]}"

    def wait(self) -> None:
        """Return when its own health check says that it serves."""
        deadline = time.monotonic() + _READY_S
        while (health := self.inspect("{{.State.Status}} {{.State.Health.Status}}")) != (
            "running healthy"
        ):
            assert health.startswith("running"), ask_docker("logs", self.name)
            assert time.monotonic() < deadline, health
            time.sleep(0.2)

    def inspect(self, template: str) -> str:
        """Return what Docker knows of it."""
        return ask_docker("inspect", "--format", template, self.name).strip()


def ask_docker(*words: str) -> str:
    """Return what a docker command says; its standard error is the failure's message."""
    told = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    return told.stdout


@cache
def provide_image(name: str) -> str:
    """Return the image's tag; the image is built when this host lacks it."""
    if not find_image(name):
        base = _BASE if docker_client.read_images([_BASE]) else ""
        provide(Variant(name=name, base=base), None)
    return make_tag(name)


def find_gguf() -> Path:
    """Return the demonstration's GGUF; skip the test where there is none."""
    path = REPOSITORY / "out" / "demo" / "gguf-Q4_K_M" / "model.gguf"
    if not path.is_file():
        pytest.skip("no out/demo/gguf-Q4_K_M/model.gguf: make demo makes it")
    return path.resolve()


@contextmanager
def serve(*options: str, arguments: Sequence[str] = ()) -> Iterator[Container]:
    """Yield a container of the image that serves, started with Docker's options."""
    name = f"tristill-test-{uuid.uuid4().hex[:12]}"
    argv = ("run", "--detach", "--pull", "never", "--name", name, *options)
    try:
        ask_docker(*argv, provide_image("serve"), *arguments)
        container = Container(name)
        container.wait()
        yield container
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", name], capture_output=True)


def fetch(url: str, value: object = None, *, key: str = "") -> tuple[int, str, str]:
    """Return the status, the type and the text that a URL answers with; a value is posted."""
    headers = {"Content-Type": "application/json"} | (
        {"Authorization": f"Bearer {key}"} if key else {}
    )
    body = None if value is None else json.dumps(value).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        answer = opener.open(urllib.request.Request(url, body, headers), timeout=60)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        text = answer.read().decode(errors="replace")
        return answer.status, answer.headers.get_content_type(), text


def read_problem() -> tuple[dict[str, Any], str]:
    """Return a chat that the demonstration's model has not seen, and its right answer."""
    rows = REPOSITORY / "out" / "demo" / "rows" / "held_out.jsonl"
    row = json.loads(rows.read_text(encoding="utf-8").splitlines()[0])
    chat = {"messages": [{"role": "user", "content": row["problem"]}], "temperature": 0}
    return chat, str(row["solution"])
