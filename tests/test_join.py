"""`join`: another host's share of a training run is the same stage, and nothing of it is sealed."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact.store import open_store
from pipeline.errors import HostError, StageError, UsageError
from pipeline.project import Project, read_project
from pipeline.verbs import join
from tests.artifact.sealing import seal_step

_RECIPE = (
    '[base]\nsource = "demo"\n[dataset]\nsource = "demo"\n'
    '[train]\naccelerator = "cpu"\nprocesses = 4\nhosts = 2\naddress = "10.0.0.1:29500"\n'
)


class _Engine:
    """Notes what it is to run."""

    def __init__(self, name: str = "venv", code: int = 0) -> None:
        self.name, self.code = name, code
        self.jobs: list[dict[str, Any]] = []

    def prepare(self, images: list[str]) -> None:
        assert images == ["train"]

    def run(self, image: str, job: dict[str, Any], **_: Any) -> int:
        assert Path(job["out"]).is_dir()
        assert Path(job["work"]).is_dir()
        self.jobs.append(job)
        return self.code


@pytest.fixture
def project(tmp_path: Path) -> Project:
    path = tmp_path / "mine.toml"
    path.write_text(_RECIPE)
    return read_project(path, open_store(tmp_path / "store"))


def _join(project: Project, monkeypatch: pytest.MonkeyPatch, engine: _Engine, host: int) -> None:
    monkeypatch.setattr("pipeline.engine.choice.make_engine", lambda *_, **__: engine)
    recipe = project.store.root.parent / "mine.toml"
    join.run(argparse.Namespace(recipe=recipe, store=project.store.root, engine="", host=host))


def _seal_inputs(project: Project, *, also: str = "") -> None:
    for step in project.make_steps(["training"]):
        if step.rule.name != "training" or also:
            seal_step(step, project.store)


def test_its_job_is_that_of_the_first_host_but_for_its_number(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    _seal_inputs(project)
    engine = _Engine()
    _join(project, monkeypatch, engine, 1)
    (job,) = engine.jobs
    step = project.find_training_step()
    expected = {**step.document["options"], **step.rule.locations, "host": "1"}
    assert job["options"] == expected
    assert (expected["hosts"], expected["address"]) == ("2", "10.0.0.1:29500")
    assert Path(job["work"]) == project.store.work_areas / step.directory
    assert project.find_training_step().artifact is None
    assert not any(project.store.workspaces.iterdir())
    with pytest.raises(StageError, match="failed"):
        _join(project, monkeypatch, _Engine(code=5), 1)


def test_it_is_refused_where_it_cannot_be(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    for host in (0, 2):
        with pytest.raises(UsageError, match="no such host"):
            _join(project, monkeypatch, _Engine(), host)
    with pytest.raises(HostError, match="a container cannot train with other hosts"):
        _join(project, monkeypatch, _Engine("docker"), 1)
    with pytest.raises(UsageError, match="not in the store yet"):
        _join(project, monkeypatch, _Engine(), 1)


def test_there_is_nothing_to_share_of_what_is_sealed(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    _seal_inputs(project, also="training")
    engine = _Engine()
    _join(project, monkeypatch, engine, 1)
    assert engine.jobs == []
