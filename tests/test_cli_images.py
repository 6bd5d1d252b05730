"""The verb `images`: which images it touches, what it says, and its exit codes."""

import os
from pathlib import Path

import pytest

from pipeline.cli import main
from pipeline.engine import docker_client
from pipeline.engine.container_image import make_labels, make_tag
from tests.engine.fake_images import FakeImages, install_fake_images


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeImages:
    return install_fake_images(tmp_path / "docker", monkeypatch)


_OF_DEMO = ("convert", "serve", "train")


def test_the_recipes_images_are_built_unless_some_are_named(
    docker: FakeImages, tmp_path: Path
) -> None:
    assert main(["images", "build", "train"]) == 0
    assert main(["images", "build", "--base", "base:local"]) == 0
    built = [call[call.index("--tag") + 1] for call in docker.read_calls("build")]
    assert built == [make_tag("train"), *map(make_tag, ("convert", "serve"))]
    assert "BASE_IMAGE=base:local" in docker.read_calls("build")[1]
    recipe = tmp_path / "mine.toml"
    recipe.write_text('[base]\nsource = "demo"\n[dataset]\nsource = "demo"\n')
    assert main(["images", "build", "--recipe", str(recipe)]) == 0
    built = [call[call.index("--tag") + 1] for call in docker.read_calls("build")][3:]
    assert built == [make_tag("serve-cuda"), make_tag("train-cuda")]


def test_a_list_says_which_are_here(docker: FakeImages, capsys: pytest.CaptureFixture[str]) -> None:
    docker.hold(make_tag("train"), make_labels("train"))
    assert main(["images", "list"]) == 0
    _, _, *lines = capsys.readouterr().out.splitlines()
    told = {line.split()[0]: "not here" not in line for line in lines}
    assert told == {make_tag(name): name == "train" for name in _OF_DEMO}


@pytest.mark.parametrize("verb", ["pull", "push"])
def test_a_registry_must_be_named(
    docker: FakeImages, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["images", verb]) == 2
    assert f"make {verb} REGISTRY=" in capsys.readouterr().err


def test_no_docker_and_no_daemon_are_told_apart(
    docker: FakeImages, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (docker.folder / "down").touch()
    assert main(["images", "build"]) == 3
    assert "Cannot connect to the Docker daemon" in capsys.readouterr().err
    docker_client.read_daemon.cache_clear()
    monkeypatch.setenv("PATH", os.devnull)
    assert main(["images", "build"]) == 3
    assert "no program of that name on PATH" in capsys.readouterr().err


@pytest.mark.parametrize("engine", ["docker", "venv"])
def test_a_host_without_the_gpus_images_is_told_before_anything_is_built(
    docker: FakeImages, tmp_path: Path, engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    command = ["gpu-check", "serve-cuda", "--engine", engine, "--store", str(store)]
    assert main(command) == 3
    told = capsys.readouterr()
    assert told.out.startswith("FAIL serve-cuda: an image")
    assert "ENGINE=venv" not in told.out
    assert "on:   serve-cuda" in told.err
    assert not list(store.glob("*-base"))
