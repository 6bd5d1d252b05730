"""compose.yaml with a real daemon: serve comes up healthy, a shell sees what a stage sees."""

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.engine import compose, docker_client
from pipeline.engine.image import IMAGES
from tests.docker.serve_container import Container, fetch, find_gguf, provide_image, read_problem

pytestmark = pytest.mark.docker

Compose = Callable[..., str]

_LOOK = """
import json, os, pathlib, sys
import pipeline.job
def is_writable(folder):
    try:
        pathlib.Path(folder, "probe").touch()
    except OSError:
        return False
    return True
print(json.dumps({
    "prefix": sys.prefix,
    "user": f"{os.getuid()}:{os.getgid()}",
    "variables": dict(os.environ),
    "writable": [each for each in ("/", "/tristill/pipeline", "/store", "/out", "/tmp")
                 if is_writable(each)],
    "store": os.listdir("/store"),
    "networks": os.listdir("/sys/class/net"),
}))
"""


@pytest.fixture
def run_compose(tmp_path: Path) -> Iterator[Compose]:
    """Run Docker Compose with a project of its own, which is gone afterwards."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True).returncode:
        pytest.skip("no Docker Compose")
    places = {"STORE": tmp_path / "store", "OUT": tmp_path / "out"}
    for path in places.values():
        path.mkdir()
    variables = {f"TRISTILL_{name}": str(path) for name, path in places.items()}
    variables |= compose.make_variables(docker_client.read_daemon()) | {"TRISTILL_PORT": "0"}
    project = f"tristill-test-{uuid.uuid4().hex[:12]}"

    def run(*words: str, **more: str) -> str:
        told = subprocess.run(
            ["docker", "compose", "--project-name", project, *words],
            cwd=REPOSITORY,
            env=os.environ | variables | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert told.returncode == 0, told.stderr
        return told.stdout

    yield run
    run("down", "--timeout", "5", "--volumes")


def test_both_files_are_valid(run_compose: Compose) -> None:
    both = ("--file", "compose.yaml", "--file", "compose.gpu.yaml")
    profiles = [word for name in ("stages", "canary", "monitoring") for word in ("--profile", name)]
    services = json.loads(run_compose(*both, *profiles, "config", "--format", "json"))["services"]
    assert {"balancer", "canary", "convert", "grafana", "prometheus", "serve", "train"} == set(
        services
    )
    assert run_compose("config", "--services").split() == ["serve"]


def test_up_starts_serve_and_it_answers(run_compose: Compose) -> None:
    provide_image("serve")
    run_compose("up", "--detach", TRISTILL_MODEL=str(find_gguf()))
    container = Container(run_compose("ps", "--format", "{{.Name}}").strip())
    container.wait()
    chat, right = read_problem()
    status, _, text = fetch(f"{container.url}/v1/chat/completions", chat)
    assert status == 200, text
    assert json.loads(text)["choices"][0]["message"]["content"].endswith(right)
    assert fetch(f"{container.url}/")[:2] == (200, "text/html")


@pytest.mark.parametrize("image", ["convert", "train"])
def test_a_shell_sees_what_a_stage_sees(run_compose: Compose, image: str, tmp_path: Path) -> None:
    provide_image(image)
    (tmp_path / "store" / "some-artifact").mkdir()
    words = ("run", "--rm", "--no-TTY", image, "bash", "-c", 'python -c "$0"', _LOOK)
    seen = json.loads(run_compose(*words))
    assert seen["prefix"] == "/opt/tristill"
    assert seen["user"] == f"{os.getuid()}:{os.getgid()}"
    assert seen["writable"] == ["/out", "/tmp"]
    assert seen["store"] == ["some-artifact"]
    assert seen["networks"] == ["lo"]
    variables = IMAGES[image].variables
    assert {name: seen["variables"].get(name) for name in variables} == variables
    assert (tmp_path / "out" / "probe").stat().st_uid == os.getuid()
