"""`watch` as it is typed: a page to look at, live or as a file; the report beside a sealed run."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.manifest import Manifest
from pipeline.artifact.rule import Digest
from pipeline.artifact.seal import seal
from pipeline.artifact.store import open_store
from pipeline.artifact.workspace import make_workspace
from pipeline.project import Project, read_project
from tests.page.parsed_page import ParsedPage
from tests.report.test_training import make_line, make_log, make_record
from tests.report.test_training_server import ask_page


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return read_project(REPOSITORY / "recipes" / "demo.toml", open_store(tmp_path / "store"))


def _start(project: Project, *argv: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", "watch", "--store", str(project.store.root), *argv],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _seal_training(project: Project) -> Digest:
    """Seal what the training would make; return its key."""
    step = project.find_training_step()
    files = {
        "metrics.jsonl": json.dumps(make_record(1, 0.125)) + "\n",
        "metrics.json": json.dumps({"loss_before": 4.0, "loss_after": 0.5}),
        "sample.json": "[]",
    }
    with make_workspace(project.store.workspaces, "training") as work:
        (work / "out").mkdir()
        for name, text in files.items():
            (work / "out" / name).write_text(text)
        manifest = Manifest(
            files=(),
            document=step.document,
            environment=step.environment,
            source=step.source,
            inputs={label: Digest("0" * 64) for label in step.rule.inputs},
            engine="venv",
        )
        seal(
            project.store,
            work / "out",
            key=step.key,
            name=step.rule.name,
            manifest=manifest,
            seconds=1,
        )
    return Digest(step.key)


def test_a_build_links_the_report_of_its_training(project: Project, tmp_path: Path) -> None:
    key = _seal_training(project)
    # What speed the run had is known from its log alone, and in no sealed byte.
    log = project.store.log_path(project.find_training_step().key, "training")
    log.write_text(make_log(make_line(1, 0.125)))
    project.build(["training"])
    page = tmp_path / "out" / "demo" / "training.html"
    shown = ParsedPage(page.read_text(encoding="utf-8"))
    shown.require_nothing_foreign()
    assert "1,234" in shown.text
    assert key in shown.text
    page.resolve().write_text("made once")
    project.build(["training"])
    assert page.read_text() == "made once"


def test_the_page_as_a_file(project: Project, tmp_path: Path) -> None:
    with _start(project, "--save", str(tmp_path / "page.html")) as process:
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, f"{tmp_path / 'page.html'}\n")
    assert "It has not begun" in (tmp_path / "page.html").read_text()


def test_it_serves_until_it_is_interrupted(project: Project) -> None:
    with _start(project, "--port", "0") as process:
        assert process.stderr is not None
        address = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stderr.readline())
        assert address
        assert "It has not begun" in ask_page(int(address[1]))
        taken = subprocess.run(
            [sys.executable, "-m", "pipeline", "watch", "--port", address[1]],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert taken.returncode == 3
        assert "cannot be served" in taken.stderr
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(30) == 0


def test_no_wording_of_the_log_and_no_look_of_the_page_trains_anew(project: Project) -> None:
    source = project.find_training_step().source
    assert "pipeline/sft/metrics.py" in source
    talk = ("pipeline/sft/progress.py", "pipeline/sft/step_line.py", "pipeline/sft/reporting.py")
    assert not set(talk) & set(source)
    assert not [path for path in source if path.startswith(("pipeline/report/", "pipeline/page/"))]
