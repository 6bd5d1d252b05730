"""`show` as it is typed: the list, the tree, the provenance; a file's copy is enough to ask."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.links import write_link
from pipeline.artifact.store import Artifact, Store, open_store
from pipeline.artifact.workspace import remove_tree
from tests.artifact.sealing import seal_small


def _show(store: Store, *argv: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pipeline", "show", "--store", str(store.root), *argv],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def _seal_chain(store: Store) -> list[Artifact]:
    merged = seal_small(store, "merged")
    gguf = seal_small(
        store, "gguf-Q4_K_M", inputs={"merged": merged}, files={"model.gguf": b"GGUF"}
    )
    return [merged, gguf]


def test_the_list_holds_everything_and_its_sum(store: Store) -> None:
    merged, gguf = _seal_chain(store)
    told = _show(store)
    assert (told.returncode, told.stderr) == (0, "")
    for each in (merged, gguf):
        assert f"{each.key[:12]}...  {each.path}" in told.stdout
    assert told.stdout.splitlines()[-1] == "2 artifacts, 262 bytes"


def test_the_document_of_the_list_keeps_its_fields(store: Store) -> None:
    artifacts = _seal_chain(store)
    shown = json.loads(_show(store, "--json").stdout)["artifacts"]
    assert [each["key"] for each in shown] == [each.key for each in artifacts]
    for each in shown:
        assert {"name", "key", "path", "bytes", "sealed"} <= set(each)


def test_a_named_artifact_is_shown_with_all_that_it_was_made_from(store: Store) -> None:
    merged, gguf = _seal_chain(store)
    told = _show(store, "gguf-Q4_K_M")
    assert told.returncode == 0
    first, second = told.stdout.splitlines()
    assert first.startswith("gguf-Q4_K_M ")
    assert second.startswith("└─ merged ")
    assert "258 bytes" in second
    assert "1.5 s" in second
    document = json.loads(_show(store, "gguf-Q4_K_M", "--json").stdout)
    assert document["wanted"] == [gguf.key]
    assert [each["key"] for each in document["artifacts"]] == [merged.key, gguf.key]


def test_a_key_a_link_and_a_copy_mean_the_same(store: Store, tmp_path: Path) -> None:
    gguf = _seal_chain(store)[1]
    link = write_link(store.out / "mine", gguf)
    copy = shutil.copy(gguf.path / "model.gguf", tmp_path / "copied.gguf")
    trees = {
        re.sub(r"just now|\d+ s ago", "(age)", _show(store, meant).stdout.splitlines()[1])
        for meant in (gguf.key[:6], str(link), str(link / "model.gguf"), str(copy))
    }
    assert len(trees) == 1


def test_provenance_of_a_copy_goes_back_to_the_first_input(store: Store, tmp_path: Path) -> None:
    merged, gguf = _seal_chain(store)
    copy = shutil.copy(gguf.path / "model.gguf", tmp_path / "copied.gguf")
    told = _show(store, "--provenance", str(copy))
    assert told.returncode == 0
    for word in (gguf.key, merged.key, gguf.manifest.sha256, "engine venv", "demo.merged"):
        assert word in told.stdout
    assert told.stdout.splitlines()[-1].startswith("consistent")
    document = json.loads(_show(store, "--provenance", str(copy), "--json").stdout)
    assert document["consistent"] is True
    assert [each["key"] for each in document["artifacts"]] == [merged.key, gguf.key]
    assert [each["_type"] for each in document["statements"]] == [
        "https://in-toto.io/Statement/v1"
    ] * 2


def test_provenance_says_what_is_gone(store: Store) -> None:
    merged, gguf = _seal_chain(store)
    remove_tree(merged.path)
    told = _show(store, "--provenance", "gguf-Q4_K_M")
    assert told.returncode == 0
    assert "NOT consistent" in told.stdout
    assert merged.manifest.content_sha256 in told.stdout
    assert merged.key in told.stdout


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["gguf"], ["no artifact is meant", "did you mean gguf-Q4_K_M?", "merged"]),
        (["--provenance"], ["no ARTIFACT is named", "--provenance ARTIFACT"]),
        (["pyproject.toml"], ["no artifact is meant", "pyproject.toml"]),
    ],
)
def test_what_cannot_be_meant_ends_with_2(store: Store, argv: list[str], words: list[str]) -> None:
    _seal_chain(store)
    told = _show(store, *argv)
    assert (told.returncode, told.stdout) == (2, "")
    assert "Traceback" not in told.stderr
    assert all(word in told.stderr for word in words), told.stderr


def test_a_manifest_that_cannot_be_read_is_named_and_the_rest_is_shown(store: Store) -> None:
    merged, gguf = _seal_chain(store)
    merged.path.chmod(0o755)
    (merged.path / "manifest.json").chmod(0o644)
    (merged.path / "manifest.json").write_text("{")
    told = _show(store, "gguf-Q4_K_M")
    assert told.returncode == 0
    assert merged.path.name in told.stderr
    assert "not readable" in told.stdout.splitlines()[1]
