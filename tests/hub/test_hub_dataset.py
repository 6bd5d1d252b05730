"""A split of the hub's is fetched once, whole, and read as `datasets` reads it there."""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import RepoFile

from pipeline.data import rows
from pipeline.data.hub import read_fetched
from pipeline.data.source import Source, write_source
from pipeline.engine.stage import run_stage
from pipeline.errors import StageError
from pipeline.hub.files import Commit, fetch_files
from tests.data.row_files import OPTIONS
from tests.hub.hub_job import make_job, run, start
from tests.hub.hub_server import COMMIT, Hub, Repository, serve_hub

pytestmark = pytest.mark.train

_STAGE = "hub.dataset"
_TOKEN = "hf_only-the-hub-may-know"
# The first of two subsets is not the one that is read; a number is declared to be text.
_CARD = b"""---
configs:
- config_name: other
  data_dir: other
- config_name: main
  data_files:
  - split: train
    path: main/train-*.jsonl
  - split: test
    path: main/test.jsonl
dataset_info:
- config_name: main
  features:
  - {name: prompt, dtype: string}
  - {name: completion, dtype: string}
---
# Some rows
"""
_CARD_OF_TWO = _CARD.partition(b"dataset_info")[0] + b"---\n"

_TABLE_CARD = b"""---
configs:
- {config_name: default, data_files: train.csv, sep: ;, skiprows: 1}
---
"""
_TABLE = b"Some words first\na;b\nx,y;1\n"


def _write_rows(start: int, stop: int) -> bytes:
    lines = [json.dumps({"prompt": f"q{n}", "completion": n}) for n in range(start, stop)]
    return "\n".join(lines).encode() + b"\n"


_FILES = {
    "README.md": _CARD,
    "main/test.jsonl": _write_rows(0, 2),
    "main/train-0.jsonl": _write_rows(2, 1000),
    "main/train-1.jsonl": _write_rows(1000, 2000),
    "other/a.jsonl": b'{"unlike": []}\n',
}
_LARGE = ("main/train-0.jsonl", "main/train-1.jsonl")


@pytest.fixture
def hub() -> Iterator[Hub]:
    plain = Repository("dataset", _FILES, _LARGE)
    repositories = {
        "org/rows": plain,
        "org/gated": replace(plain, token=_TOKEN),
        "org/damaged": replace(plain, damaged={"main/train-1.jsonl"}),
        "org/small": Repository("dataset", {"a.csv": b"text\na\n"}, damaged={"a.csv"}),
        "org/two": replace(plain, files={**_FILES, "README.md": _CARD_OF_TWO}),
        "org/table": Repository("dataset", {"README.md": _TABLE_CARD, "train.csv": _TABLE}),
        "org/code": Repository("dataset", {"code.py": b"", "README.md": b""}),
        "org/model": Repository("model", {"README.md": b""}),
    }
    with serve_hub(repositories) as served:
        yield served


def _make(folder: Path, repository: str = "org/rows", **options: str) -> dict[str, object]:
    told = {"repository": repository, "revision": COMMIT, "subset": "main", "split": "train"}
    return make_job(folder, _STAGE, **(told | options))


def _read(out: Path) -> dict[str, bytes]:
    paths = [path for path in sorted(out.rglob("*")) if path.is_file()]
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in paths}


def test_a_split_is_fetched_and_read_without_the_hub(tmp_path: Path, hub: Hub) -> None:
    load = {"load": ["org/rows", "main", COMMIT, "train"]}
    done, expected = run(tmp_path / "work", hub.endpoint, [_make(tmp_path), load])
    assert done is None
    found = _read(tmp_path / "out")
    document = json.loads(found.pop("hub.json"))
    assert document["files"] == list(_LARGE)
    assert found == {f"files/{name}": _FILES[name] for name in ("README.md", *_LARGE)}
    records = list(read_fetched(tmp_path / "out", "org/rows"))
    assert [record.columns for record in records] == expected
    assert records[-1] == ("org/rows:1998", {"prompt": "q1999", "completion": "1999"})


def test_what_the_card_says_of_a_table_is_obeyed(tmp_path: Path, hub: Hub) -> None:
    load = {"load": ["org/table", "default", COMMIT, "train"]}
    job = _make(tmp_path, repository="org/table", subset="")
    done, expected = run(tmp_path / "work", hub.endpoint, [job, load])
    assert done is None
    assert expected == [{"a": "x,y", "b": 1}]
    assert [record.columns for record in read_fetched(tmp_path / "out", "org/table")] == expected


def test_rows_are_made_of_it(tmp_path: Path, hub: Hub) -> None:
    assert run(tmp_path / "work", hub.endpoint, [_make(tmp_path, split="test")]) == [None]
    source = write_source(Source(hub="org/rows", split="test"))
    (tmp_path / "made").mkdir()
    options = replace(OPTIONS, sources=(source,), held_out=1)
    rows.run({"source-1": tmp_path / "out"}, options, tmp_path / "made")
    (line,) = (tmp_path / "made" / "train.jsonl").read_text().splitlines()
    assert json.loads(line)["source"] in ("org/rows:1", "org/rows:2")
    assert json.loads((tmp_path / "made" / "cleaning.json").read_text())["read"] == 2


def test_what_a_killed_run_has_fetched_is_not_fetched_again(tmp_path: Path, hub: Hub) -> None:
    hub.held = "main/train-1.jsonl"
    area = tmp_path / "first" / "area"
    with start(tmp_path / "work", hub.endpoint) as killed:
        assert killed.stdin is not None
        killed.stdin.write(json.dumps(_make(tmp_path / "first")) + "\n")
        killed.stdin.close()
        assert hub.is_waiting.wait(120)
        while not (area / "main" / "train-0.jsonl").is_file():
            time.sleep(0.01)
        killed.kill()
    hub.held = ""
    hub.go_on.set()
    (area.parent / "out").rename(tmp_path / "gone")
    again = {**_make(tmp_path / "again"), "work": str(area)}
    assert run(tmp_path / "work", hub.endpoint, [again]) == [None]
    assert hub.sent.count("main/train-0.jsonl") == 1
    assert hub.sent.count("main/train-1.jsonl") == 2
    assert _read(tmp_path / "again" / "out")["files/main/train-1.jsonl"] == _FILES[_LARGE[1]]


def test_what_the_hub_does_not_have_is_said(tmp_path: Path, hub: Hub) -> None:
    cases: list[tuple[dict[str, str], str, str]] = [
        ({"repository": "org/nothing"}, "has no such repository", "404"),
        ({"repository": "org/model"}, "has no such repository", "404"),
        ({"repository": "org/gated"}, "is gated", "401"),
        ({"revision": "f" * 40}, "no such commit", "404"),
        ({"split": "dev"}, "no split 'dev'", "train, test"),
        ({"subset": "third"}, "cannot be read", "third"),
        ({"repository": "org/two", "subset": ""}, "cannot be read", "main"),
        ({"repository": "org/code", "subset": ""}, "cannot be read", ""),
        ({"repository": "org/damaged"}, "not the commit's", "damaged on its way"),
        ({"repository": "org/small", "subset": ""}, "not the commit's", "damaged on its way"),
    ]
    jobs = [_make(tmp_path / str(n), **options) for n, (options, _, _) in enumerate(cases)]
    answers = run(tmp_path / "work", hub.endpoint, jobs)
    for (options, what, why), answer in zip(cases, answers, strict=True):
        assert answer and what in answer["what"], (options, answer)
        assert why in answer["why"], (options, answer)
        assert options.get("repository", "org/rows") in answer["on"]
        assert answer["then"]
    kept = tmp_path / "8" / "area" / "main"
    assert sorted(path.name for path in kept.iterdir()) == ["train-0.jsonl"]


def test_a_hub_that_does_not_answer_is_said(tmp_path: Path) -> None:
    with serve_hub({}) as hub:
        endpoint = hub.endpoint
    (answer,) = run(tmp_path / "work", endpoint, [_make(tmp_path)])
    assert answer["what"] == "the hub does not answer"
    assert "org/rows" in answer["on"]


@pytest.mark.parametrize("name", ["../rows.jsonl", "/rows.jsonl", "a/../../rows.jsonl"])
def test_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    commit = Commit(kind="dataset", repository="org/rows", revision=COMMIT)
    with pytest.raises(StageError, match="leads out of its repository"):
        fetch_files(
            commit, [RepoFile(path=name, size=1, oid="0" * 40)], work=tmp_path, out=tmp_path
        )


def test_a_token_reaches_the_hub_and_nothing_else(
    tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the engines run it: the caller's token is told to the stage that fetches."""
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("HF_TOKEN", _TOKEN)
    job = _make(tmp_path, repository="org/gated")
    log = tmp_path / "log"
    work = tmp_path / "work"
    work.mkdir()
    assert run_stage(Path(sys.executable), "train", job, work=work, log=log) == 0, log.read_text()
    for folder, _, names in os.walk(tmp_path):
        for name in names:
            assert _TOKEN.encode() not in Path(folder, name).read_bytes(), name
