"""A job document becomes one call of a stage's `run`; its errors become exit codes."""

import json
from pathlib import Path

import pytest

from pipeline.demo import rows
from pipeline.job import main


def _write_job(tmp_path: Path, **changes: object) -> str:
    out = tmp_path / "out"
    out.mkdir()
    document = {
        "stage": "demo.rows",
        "inputs": {},
        "options": {"seed": 1, "digits": 2, "rows": 3, "held_out": 2},
        "out": str(out),
    }
    path = tmp_path / "job.json"
    path.write_text(json.dumps(document | changes))
    return str(path)


def test_a_job_runs_its_stage(tmp_path: Path) -> None:
    assert main([_write_job(tmp_path)]) == 0
    assert len((tmp_path / "out" / "train.jsonl").read_text().splitlines()) == 3


def test_a_stage_that_resumes_gets_its_work_area(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(inputs: object, options: object, out: Path, work: Path) -> None:
        (out / "found").write_text(",".join(path.name for path in work.iterdir()))

    monkeypatch.setattr(rows, "run", run)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "half").touch()
    assert main([_write_job(tmp_path, work=str(tmp_path / "work"))]) == 0
    assert (tmp_path / "out" / "found").read_text() == "half"


def test_an_error_of_the_stage_is_told_and_passed_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"seed": 1, "digits": 2, "rows": 9999, "held_out": 2}
    assert main([_write_job(tmp_path, options=options)]) == 5
    told = capsys.readouterr().err
    assert told.startswith("error: there are not enough problems")
    assert "next:" in told


def test_options_that_the_stage_does_not_know_are_our_own_bug(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="disagree"):
        main([_write_job(tmp_path, options={"seed": 1})])
