"""A container that runs its own stages, and is refused for any image that it is not."""

import sys
from pathlib import Path

import pytest

from pipeline.artifact.key import make_digest
from pipeline.engine.here_engine import HereEngine
from pipeline.engine.image import IMAGES, make_environment_document
from pipeline.errors import HostError

_TRAIN = make_digest(make_environment_document(IMAGES["train"]))


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HereEngine:
    """Return the engine of a host that is the image train."""
    monkeypatch.setenv("TRISTILL_ENVIRONMENT", _TRAIN)
    monkeypatch.setenv("TRISTILL_IMAGE", "train")
    (tmp_path / "prefix" / "bin").mkdir(parents=True)
    (tmp_path / "prefix" / "bin" / "python").symlink_to(sys.executable)
    return HereEngine(prefix=tmp_path / "prefix")


def test_the_image_that_this_host_is_needs_nothing(engine: HereEngine) -> None:
    engine.prepare(["train"])
    assert engine.count_missing_bytes(["train"]) == (engine.prefix, 0)


def test_another_image_is_refused_with_both_named(engine: HereEngine) -> None:
    with pytest.raises(HostError, match="not the image") as caught:
        engine.prepare(["train", "serve"])
    assert "serve" in caught.value.on
    assert make_digest(make_environment_document(IMAGES["serve"])) in caught.value.on
    assert f"{_TRAIN}: image train" in caught.value.why


def test_an_older_build_of_the_same_image_is_refused(
    engine: HereEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRISTILL_ENVIRONMENT", "0" * 64)
    with pytest.raises(HostError) as caught:
        engine.prepare(["train"])
    assert _TRAIN in caught.value.on
    assert "0" * 64 in caught.value.why


def test_a_host_that_is_no_image_is_refused(
    engine: HereEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRISTILL_ENVIRONMENT")
    with pytest.raises(HostError) as caught:
        engine.prepare(["train"])
    assert "not set" in caught.value.why
    assert "/proc/1/environ" in caught.value.then


def test_a_stage_runs_with_the_images_python_and_variables(
    engine: HereEngine, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    (work / "out").mkdir(parents=True)
    options = {"seed": 1, "digits": 2, "rows": 30, "held_out": 4}
    job = {"stage": "demo.rows", "inputs": {}, "options": options, "out": str(work / "out")}
    assert engine.run("train", job, work=work, log=work / "log") == 0
    assert (work / "out" / "train.jsonl").is_file()
    command = (work / "log").read_text().splitlines()[0]
    assert command.startswith(f"+ {engine.prefix}/bin/python -m pipeline.job ")


def test_a_program_runs_with_its_own_paths(
    engine: HereEngine, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = "import os, sys; print(sys.argv[1:], os.environ['PYTHONHASHSEED']); sys.exit(3)"
    argv = ["bin/python", "-c", script, str(tmp_path)]
    assert engine.interact("train", argv, inputs=[tmp_path], port=1) == 3
    assert capfd.readouterr().out == f"['{tmp_path}'] 0\n"
