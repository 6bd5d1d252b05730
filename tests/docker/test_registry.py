"""Images in a real registry on the loopback address: pushed, pulled by digest, refused."""

import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.engine import container_image, docker_client, image_registry
from pipeline.engine.image_registry import Registry
from pipeline.errors import HostError
from tests.docker.small_image import TAG, make_small_image

pytestmark = pytest.mark.docker

_CONFIGURATION = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""
_LABELS = {"io.tristill.recipe": "of the test"}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry's host, port and path."""
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("no docker-registry: apt-get install docker-registry")
    root = tmp_path_factory.mktemp("registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (root / "config.yml").write_text(_CONFIGURATION.format(root=root, port=port))
    with (root / "log").open("w") as log:
        serving = subprocess.Popen([program, "serve", root / "config.yml"], stdout=log, stderr=log)
    try:
        _wait_for(f"http://127.0.0.1:{port}/v2/")
        yield f"127.0.0.1:{port}/somebody"
    finally:
        serving.terminate()
        serving.wait()


def _wait_for(url: str) -> None:
    for _ in range(100):
        with suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


@pytest.fixture
def registry(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """That registry, with a small image in the place of `serve`."""
    make_small_image()
    tag = f"tristill-registry-test:{tmp_path.name[-24:].strip('_').lower()}"
    _make_labelled(tag, _LABELS)
    for module in (container_image, image_registry):
        monkeypatch.setattr(module, "make_tag", lambda name: tag)
        monkeypatch.setattr(module, "make_labels", lambda name: _LABELS)
        monkeypatch.setattr(module, "make_recipe_digest", lambda name: "of the test")
    yield Registry(address=address, lock=tmp_path / "images.lock")
    _remove(tag, f"{address}/{tag}")


def _make_labelled(tag: str, labels: dict[str, str], word: str = "one") -> None:
    """Make an image over the small one, with a file of its own."""
    lines = [f"FROM {TAG}", *(f'LABEL {name}="{value}"' for name, value in labels.items())]
    argv = ["docker", "build", "--quiet", "--tag", tag, "-"]
    dockerfile = "\n".join([*lines, "USER 0", f"RUN echo {word} >/word", "USER 65532:65532"])
    subprocess.run(argv, input=dockerfile, text=True, check=True, capture_output=True)


def _remove(*references: str) -> None:
    argv = ["docker", "image", "rm", "--force", *references]
    subprocess.run(argv, check=False, capture_output=True)


def _read_id(reference: str) -> str:
    (image,) = docker_client.read_images([reference])
    return str(image["Id"])


def test_what_is_pulled_is_what_was_pushed(registry: Registry) -> None:
    tag = container_image.make_tag("serve")
    pushed = _read_id(tag)
    registry.push("serve")
    _remove(tag, registry.make_reference("serve"))
    assert docker_client.read_images([tag]) == []
    registry.pull("serve")
    assert _read_id(tag) == pushed
    assert container_image.find_image("serve") == pushed


def test_the_locked_digest_is_pulled_whatever_the_tag_points_to(registry: Registry) -> None:
    tag, reference = container_image.make_tag("serve"), registry.make_reference("serve")
    pushed = _read_id(tag)
    registry.push("serve")
    _make_labelled(reference, _LABELS, word="two")
    subprocess.run(["docker", "push", "--quiet", reference], check=True, capture_output=True)
    assert _read_id(reference) != pushed
    _remove(tag, reference)
    registry.pull("serve")
    assert _read_id(tag) == pushed


def test_an_image_that_is_not_what_its_tag_says_is_refused(registry: Registry) -> None:
    tag, reference = container_image.make_tag("serve"), registry.make_reference("serve")
    _make_labelled(reference, {"io.tristill.recipe": "another"}, word="three")
    subprocess.run(["docker", "push", "--quiet", reference], check=True, capture_output=True)
    _remove(tag, reference)
    with pytest.raises(HostError, match="not what its tag says"):
        registry.pull("serve")
    assert docker_client.read_images([tag]) == []
    assert not registry.lock.exists()


def test_what_a_registry_lacks_is_not_there(registry: Registry) -> None:
    elsewhere = replace(registry, address=f"{registry.address}/nobody")
    assert not elsewhere.find("serve")
