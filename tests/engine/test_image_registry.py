"""A pulled image counts once its labels say what its tag says; its digest is kept and honoured."""

import json
from pathlib import Path

import pytest

from pipeline.engine.container_image import make_labels, make_recipe_digest, make_tag
from pipeline.engine.image_registry import Registry
from pipeline.errors import HostError
from tests.engine.fake_images import FakeImages, install_fake_images

_PINNED = "reg.example/me/tristill-train@sha256:" + "a" * 64
_ENTRY = {"recipe": make_recipe_digest("train"), "reference": _PINNED}


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeImages:
    return install_fake_images(tmp_path / "docker", monkeypatch)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(address="reg.example/me/", lock=tmp_path / "images.lock")


def _read(registry: Registry) -> dict[str, dict[str, str]]:
    document: dict[str, dict[str, str]] = json.loads(registry.lock.read_text())
    return document


def test_a_pulled_image_gets_its_name_and_a_line_in_the_lock(
    docker: FakeImages, registry: Registry
) -> None:
    reference = f"reg.example/me/{make_tag('train')}"
    docker.hold(reference, make_labels("train"))
    registry.pull("train")
    assert docker.read_calls("pull") == [["pull", "--quiet", reference]]
    assert docker.read_calls("tag") == [["tag", reference, make_tag("train")]]
    assert _read(registry) == {"train": _ENTRY}


def test_a_later_pull_takes_the_digest_in_the_lock(docker: FakeImages, registry: Registry) -> None:
    other = {"recipe": "0" * 64, "reference": "reg.example/me/tristill-serve@sha256:0"}
    registry.lock.write_text(json.dumps({"train": _ENTRY, "serve": other}))
    docker.hold(_PINNED, make_labels("train"))
    registry.pull("train")
    assert docker.read_calls("pull") == [["pull", "--quiet", _PINNED]]
    assert _read(registry) == {"train": _ENTRY, "serve": other}


@pytest.mark.parametrize(
    "entry",
    [{**_ENTRY, "recipe": "0" * 64}, {**_ENTRY, "reference": _PINNED.replace("me", "you")}],
)
def test_a_digest_of_another_recipe_or_registry_is_not_taken(
    docker: FakeImages, registry: Registry, entry: dict[str, str]
) -> None:
    registry.lock.write_text(json.dumps({"train": entry}))
    docker.hold(registry.make_reference("train"), make_labels("train"))
    registry.pull("train")
    assert docker.read_calls("pull") == [["pull", "--quiet", registry.make_reference("train")]]


def test_an_image_that_is_not_what_its_tag_says_gets_no_name(
    docker: FakeImages, registry: Registry
) -> None:
    docker.hold(registry.make_reference("train"), make_labels("serve"))
    with pytest.raises(HostError, match=r"io\.tristill\.recipe is"):
        registry.pull("train")
    assert docker.read_calls("tag") == []
    assert not registry.lock.exists()
    assert not registry.find("train")


def test_a_registry_without_the_image_is_told_apart(docker: FakeImages, registry: Registry) -> None:
    with pytest.raises(HostError, match="docker pull failed") as caught:
        registry.pull("train")
    assert "not found" in caught.value.why
    assert not registry.find("train")


def test_a_pushed_image_has_a_line_in_the_lock(docker: FakeImages, registry: Registry) -> None:
    docker.hold(make_tag("train"), make_labels("train"))
    registry.push("train")
    reference = f"reg.example/me/{make_tag('train')}"
    assert docker.read_calls("tag") == [["tag", make_tag("train"), reference]]
    assert docker.read_calls("push") == [["push", "--quiet", reference]]
    assert _read(registry) == {"train": _ENTRY}


def test_an_image_that_is_not_here_is_not_pushed(docker: FakeImages, registry: Registry) -> None:
    with pytest.raises(HostError, match="make images"):
        registry.push("train")
    assert docker.read_calls("push") == []
