"""A stage runs as if it were in a container."""

import json
import os
import sys
from pathlib import Path

import pytest

from pipeline.engine import stage
from pipeline.engine.image import IMAGES

_FAKE_JOB = """
import json, os, sys
print("talk", file=sys.stderr)
print(json.dumps({"variables": dict(os.environ), "cwd": os.getcwd(), "job": sys.argv[1]}))
sys.exit(5)
"""


def test_a_stage_sees_nothing_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "repository" / "pipeline").mkdir(parents=True)
    (tmp_path / "repository" / "pipeline" / "job.py").write_text(_FAKE_JOB)
    monkeypatch.setattr(stage, "REPOSITORY", tmp_path / "repository")
    monkeypatch.setenv("SECRET", "of the caller")
    work = tmp_path / "work"
    work.mkdir()
    log_path = tmp_path / "logs" / "text.log"
    code = stage.run_stage(Path(sys.executable), "train", {"stage": "x"}, work=work, log=log_path)
    assert code == 5
    command, *lines = log_path.read_text().splitlines()
    assert command == f"+ {sys.executable} -m pipeline.job {work / 'job.json'}"
    assert "talk" in lines
    assert capsys.readouterr().err.splitlines() == lines
    seen = json.loads(max(lines, key=len))
    assert seen["cwd"] == str(work)
    assert json.loads((work / "job.json").read_text()) == {"stage": "x"}
    assert seen["variables"] == {
        **IMAGES["train"].variables,
        "CUDA_VISIBLE_DEVICES": "",
        "HOME": str(work),
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(tmp_path / "repository"),
        "TMPDIR": str(work / "tmp"),
        "USER": "tristill",
    }
    assert os.environ["SECRET"] == "of the caller"


@pytest.mark.parametrize("address", ["", "10.0.0.1:29500"])
def test_a_stage_that_meets_other_hosts_gets_the_callers_network_interface(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "job.py").write_text(_FAKE_JOB)
    monkeypatch.setattr(stage, "REPOSITORY", tmp_path)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth1")
    log_path = tmp_path / "log"
    job = {"stage": "x", "options": {"address": address}}
    stage.run_stage(Path(sys.executable), "train", job, work=tmp_path, log=log_path)
    seen = json.loads(max(log_path.read_text().splitlines(), key=len))["variables"]
    assert seen.get("GLOO_SOCKET_IFNAME") == ("eth1" if address else None)
