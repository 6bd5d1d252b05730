"""The real images: a build in containers gives what a build in virtual environments gives."""

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.store import open_store
from pipeline.engine.container_image import find_image, make_tag
from pipeline.engine.venv_engine import make_engine

pytestmark = pytest.mark.docker

_RECIPE = REPOSITORY / "tests" / "end_to_end" / "tiny.toml"
_IMAGES = ("convert", "train")


@pytest.fixture(scope="module", autouse=True)
def images() -> None:
    """Skip where an image or a virtual environment is not there: both take minutes to make."""
    if missing := [make_tag(name) for name in _IMAGES if find_image(name) is None]:
        pytest.skip(f"no image {', '.join(missing)}: `make images` builds them")
    if make_engine().count_missing_bytes(_IMAGES)[1]:
        pytest.skip("no virtual environments of convert and train: any build makes them")


def _run(verb: str, store: Path, engine: str, *artifacts: str) -> str:
    told = subprocess.run(
        [
            *(sys.executable, "-m", "pipeline", verb, *artifacts),
            *("--recipe", _RECIPE, "--store", store, "--engine", engine),
        ],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    return told.stderr


def test_text_has_the_same_key_and_bytes_from_both_engines(tmp_path: Path) -> None:
    sealed = {}
    for engine in ("venv", "docker"):
        store = tmp_path / engine / "store"
        _run("build", store, engine, "rows", "text")
        artifacts, _ = open_store(store).read_all()
        assert {each.manifest.engine for each in artifacts} == {engine}
        sealed[engine] = {each.name: (each.key, each.manifest.content_sha256) for each in artifacts}
    assert set(sealed["docker"]) == {"rows", "base", "text"}
    assert sealed["docker"] == sealed["venv"]
    told = _run("rebuild", tmp_path / "venv" / "store", "docker", "text")
    assert "byte for byte" in told
