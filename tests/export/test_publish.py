"""A folder comes to the hub whole, by the hub's own library, and its token comes nowhere else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact.key import REPOSITORY
from tests.export.hub_uploads import COMMIT, Hub, serve_hub
from tests.export.sealed_recipe import seal_recipe
from tests.hub.hub_job import make_job, run

pytestmark = pytest.mark.convert

_TOKEN = "hf_only-the-hub-may-know"
_FILES = {
    "README.md": b"---\nlicense: mit\n---\n# A model\n",
    "a-Q4_K_M.gguf": bytes(range(256)) * 9,
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_hub(Hub(token=_TOKEN)) as served:
        yield served


def _publish(tmp_path: Path, hub: Hub, *, token: str = _TOKEN, public: bool = False) -> Any:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in _FILES.items():
        (folder / name).write_bytes(content)
    job = make_job(tmp_path, "export.publish") | {"inputs": {"folder": str(folder)}}
    job["options"] = {"repository": "org/model", "public": public}
    job.pop("work")
    # The hub's newer protocol needs a service of its own.
    caller = {"HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
    (answer,) = run(tmp_path / "work", hub.endpoint, [job], **caller)
    return answer


def test_every_file_is_there_and_the_repository_is_private(tmp_path: Path, hub: Hub) -> None:
    assert _publish(tmp_path, hub) is None
    assert hub.repository == "org/model"
    assert hub.private is True
    assert hub.files == _FILES
    assert set(hub.large) == {"a-Q4_K_M.gguf"}
    assert (tmp_path / "out" / "published.txt").read_text().startswith(hub.endpoint)


def test_what_the_hub_holds_is_not_sent_again(tmp_path: Path, hub: Hub) -> None:
    (tmp_path / "first").mkdir()
    assert _publish(tmp_path / "first", hub, public=True) is None
    assert hub.private is False
    hub.asked.clear()
    (tmp_path / "second").mkdir()
    assert _publish(tmp_path / "second", hub) is None
    assert not [each for each in hub.asked if each.startswith("PUT")]


@pytest.mark.parametrize("name", sorted(_FILES))
def test_a_commit_that_holds_other_bytes_is_an_error(tmp_path: Path, hub: Hub, name: str) -> None:
    hub.damaged = name
    answer = _publish(tmp_path, hub)
    assert answer["what"] == "the hub does not hold what was sent"
    assert name in answer["on"]
    assert not (tmp_path / "out" / "published.txt").exists()


def test_a_wrong_token_is_refused_and_told_nowhere(
    tmp_path: Path, hub: Hub, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = _publish(tmp_path, hub, token="hf_another-one")
    assert answer["what"].startswith("the hub")
    written = "".join(
        path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()
    )
    for text in (str(answer), written, "".join(capfd.readouterr())):
        assert "another-one" not in text
    assert hub.files == {}


def test_the_verb_sends_the_exported_folder(tmp_path: Path, hub: Hub) -> None:
    project, recipe = seal_recipe(tmp_path)
    argv = [sys.executable, "-m", "pipeline", "publish", "--upload", "--engine", "venv"]
    argv += ["--recipe", str(recipe), "--store", str(project.store.root)]
    variables = {"HF_TOKEN": _TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_ENDPOINT": hub.endpoint}
    told = subprocess.run(
        [*argv, "--repository", "org/model"],
        cwd=REPOSITORY,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    folder = project.links / "export"
    assert hub.files == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert told.stdout.splitlines()[-1] == f"{hub.endpoint}/org/model/commit/{COMMIT}"
    logs = "".join(path.read_text() for path in (project.store.root / ".logs").glob("*.log"))
    assert "read back" in logs
    assert _TOKEN not in told.stdout + told.stderr + logs
