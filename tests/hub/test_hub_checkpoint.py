"""A base that is fetched from the hub is the base that a copy of the user's own would be."""

import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

from pipeline.checkpoint import base
from tests.checkpoint.tiny_base import write_base
from tests.hub.hub_job import make_job, run
from tests.hub.hub_server import COMMIT, Hub, Repository, serve_hub

pytestmark = pytest.mark.convert

_INDEX = "model.safetensors.index.json"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    write_base(tmp_path / "own")
    files = {path.name: path.read_bytes() for path in sorted((tmp_path / "own").iterdir())}
    beside = {
        "consolidated.safetensors": b"a second copy",
        "README.md": b"",
        "sub/config.json": b"{}",
        ".gitattributes": b"",
    }
    large = tuple(name for name in files if name.endswith(".safetensors"))
    whole = Repository("model", {**beside, **files}, large)
    unindexed = {name: content for name, content in files.items() if name != _INDEX}
    repositories = {
        "org/base": whole,
        "org/cut": replace(whole, files={k: v for k, v in files.items() if k != large[1]}),
        "org/unnamed": replace(whole, files={**unindexed, _INDEX: b"[]"}),
        "org/none": Repository("model", {"config.json": b"{}"}),
        "org/rows": Repository("dataset", files),
    }
    with serve_hub(repositories) as served:
        yield served


def test_the_same_files_as_of_a_copy(tmp_path: Path, hub: Hub) -> None:
    names = ("org/base", "org/cut", "org/unnamed", "org/none", "org/rows")
    jobs = [
        make_job(tmp_path / name, "hub.checkpoint", repository=name, revision=COMMIT)
        for name in names
    ]
    done, *refused = run(tmp_path / "work", hub.endpoint, jobs)
    assert done is None
    found = {path.name: path.read_bytes() for path in (tmp_path / names[0] / "out").iterdir()}
    own = [path for path in sorted((tmp_path / "own").iterdir()) if path.suffix != ".md"]
    lines = tuple(f"{sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in own)
    (tmp_path / "copied").mkdir()
    base.run({"source": tmp_path / "own"}, base.Options(files=lines), tmp_path / "copied")
    assert found == {path.name: path.read_bytes() for path in (tmp_path / "copied").iterdir()}
    assert json.loads(found[_INDEX])["weight_map"]
    assert [answer["what"] for answer in refused] == [
        *["the hub's repository is no checkpoint of safetensors"] * 3,
        "the hub has no such repository",
    ]
    assert "which is not there" in refused[0]["why"]
    assert not any(name.startswith("consolidated") for name in hub.sent)
