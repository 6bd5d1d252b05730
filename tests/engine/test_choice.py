"""The engine that is named is taken; without a name, the best that is ready."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import cli
from pipeline.artifact.build import make_manifest
from pipeline.artifact.seal import seal
from pipeline.artifact.store import open_store
from pipeline.artifact.workspace import make_workspace
from pipeline.engine import choice, docker_client
from pipeline.engine.choice import make_engine
from pipeline.engine.docker_engine import DockerEngine
from pipeline.errors import UsageError
from pipeline.project import RECIPES, read_project
from pipeline.recipe.recipe import Limits
from tests.engine.fake_docker import FakeDocker, install_fake_docker

_IMAGES = ("convert", "serve", "train")


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDocker]:
    yield install_fake_docker(tmp_path / "fake docker", monkeypatch)
    docker_client.read_daemon.cache_clear()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(choice, "say", lines.append)
    return lines


@pytest.mark.parametrize("name", ["docker", "venv", "here"])
def test_a_named_engine_is_taken_and_nothing_is_asked(docker: FakeDocker, name: str) -> None:
    assert make_engine(name, images=_IMAGES).name == name
    assert not (docker.folder / "calls").exists()


def test_the_command_line_knows_the_same_names() -> None:
    for name in cli._ENGINES:
        assert make_engine(name, images=_IMAGES).name == name
    with pytest.raises(UsageError, match="no such engine"):
        make_engine("podman", images=_IMAGES)


def test_docker_is_taken_where_all_images_are_there(docker: FakeDocker, said: list[str]) -> None:
    docker.hold("convert", "train", "serve")
    assert make_engine(images=_IMAGES).name == "docker"
    assert said == []


def test_docker_without_an_image_is_named_and_passed_over(
    docker: FakeDocker, said: list[str]
) -> None:
    docker.hold("convert", "serve")
    assert make_engine(images=_IMAGES).name == "venv"
    (line,) = said
    assert "1 of the 3 images" in line
    assert "make images" in line
    assert "make pull REGISTRY=" in line


def test_a_daemon_that_does_not_answer_is_passed_over(docker: FakeDocker, said: list[str]) -> None:
    docker.go_down("Cannot connect to the Docker daemon.")
    assert make_engine(images=_IMAGES).name == "venv"
    assert said == []


def test_without_docker_it_is_venv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert make_engine(images=_IMAGES).name == "venv"
    assert said == []


def test_a_container_gets_the_recipes_limits() -> None:
    engine = make_engine("docker", images=_IMAGES, limits=Limits(memory_gb=2.5, pids=100))
    assert isinstance(engine, DockerEngine)
    assert (engine.memory_gb, engine.pids) == (2.5, 100)


def test_a_build_of_nothing_asks_docker_nothing(docker: FakeDocker, tmp_path: Path) -> None:
    project = read_project(RECIPES / "demo.toml", open_store(tmp_path / "store"))
    (step,) = project.make_steps(["rows"])
    with make_workspace(project.store.workspaces, "rows") as work:
        (work / "out").mkdir()
        (work / "out" / "file").write_text("rows")
        manifest = make_manifest(step, {}, make_engine("venv", images=_IMAGES))
        seal(project.store, work / "out", key=step.key, name="rows", manifest=manifest, seconds=0)
    assert list(project.build(["rows"])) == ["rows"]
    assert not (docker.folder / "calls").exists()
