"""The store: whole or not there, read-only; a hit looks at sizes and never at times."""

import json
import os
from pathlib import Path

import pytest

from pipeline.artifact.seal import seal
from pipeline.artifact.store import Store, open_store
from pipeline.artifact.workspace import make_workspace
from pipeline.errors import StageError, StoreError, UsageError
from tests.artifact.sealing import damage_file, make_manifest, seal_small, write_files


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def test_a_sealed_artifact_is_found_with_its_files(store: Store) -> None:
    sealed = seal_small(store)
    assert store.find(sealed.key, "text") == sealed
    assert [(file.path, file.size_bytes) for file in sealed.manifest.files] == [
        ("config.json", 2),
        ("sub/weights", 256),
    ]
    assert sealed.manifest.files[0].sha256 == (
        "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )
    assert sealed.seconds == 1.5


def test_a_sealed_artifact_is_read_only(store: Store) -> None:
    path = seal_small(store).path
    assert [
        oct(each.stat().st_mode & 0o777) for each in (path, path / "sub", path / "config.json")
    ] == ["0o555", "0o555", "0o444"]


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({}, "it wrote no file"),
        ({"manifest.json": b"{}"}, "that name is the manifest's"),
    ],
)
def test_an_output_that_cannot_be_sealed_is_refused(
    store: Store, files: dict[str, bytes], what: str
) -> None:
    with pytest.raises(StageError, match="made no artifact") as caught:
        seal_small(store, files=files)
    assert caught.value.why == what
    assert store.read_all() == ([], [])


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_an_output_with_what_is_no_plain_file_is_refused(store: Store, kind: str) -> None:
    with make_workspace(store.workspaces, "text") as work, pytest.raises(StageError) as caught:
        out = write_files(work / "out")
        if kind == "link":
            (out / kind).symlink_to("/etc/passwd")
        else:
            os.mkfifo(out / kind)
        manifest = make_manifest("text")
        seal(store, out, key=seal_small(store).key, name="x", manifest=manifest, seconds=0)
    assert caught.value.on == kind


@pytest.mark.parametrize("how", ["truncated", "missing"])
def test_a_hit_refuses_a_file_of_another_size(store: Store, how: str) -> None:
    sealed = seal_small(store)
    damage_file(sealed.path / "sub" / "weights", how)
    with pytest.raises(StoreError, match="damaged") as caught:
        store.find(sealed.key, "text")
    assert "verify text" in caught.value.then


@pytest.mark.parametrize("content", ["", "{", "[]", '{"subject": 3}', '{"predicate": []}'])
def test_a_hit_refuses_an_unreadable_manifest(store: Store, content: str) -> None:
    sealed = seal_small(store)
    sealed.path.chmod(0o755)
    (sealed.path / "manifest.json").chmod(0o644)
    (sealed.path / "manifest.json").write_text(content)
    with pytest.raises(StoreError, match="damaged"):
        store.find(sealed.key, "text")


@pytest.mark.parametrize(
    "change", [{"inputs": []}, {"inputs": {"text": 3}}, {"options": None}, {"stage": 1}], ids=str
)
def test_a_manifest_without_a_sound_key_document_is_unreadable(
    store: Store, change: dict[str, object]
) -> None:
    sealed = seal_small(store)
    path = sealed.path / "manifest.json"
    path.chmod(0o644)
    statement = json.loads(path.read_text())
    parameters = statement["predicate"]["buildDefinition"]["internalParameters"]
    parameters["key_document"] |= change
    path.write_text(json.dumps(statement))
    artifacts, unreadable = store.read_all()
    assert artifacts == []
    assert [each.path for each in unreadable] == ["manifest.json"]


@pytest.mark.parametrize("time_ns", [0, 1, 4_102_444_800_000_000_000], ids=["0", "1", "2100"])
def test_modification_times_mean_nothing(store: Store, time_ns: int) -> None:
    sealed = seal_small(store)
    for path in [sealed.path, *sealed.path.rglob("*"), store.root, store.root / ".logs"]:
        os.utime(path, ns=(time_ns, time_ns))
    assert store.find(sealed.key, "text") == sealed


def test_a_second_publisher_of_a_key_leaves_the_first(store: Store) -> None:
    """Where locks do nothing, two may come to the rename."""
    first = seal_small(store)
    assert seal_small(store) == first
    assert list(store.workspaces.iterdir()) == []


def test_two_stores_give_the_same_manifest(tmp_path: Path) -> None:
    paths = [seal_small(open_store(tmp_path / name)).path for name in ("one", "two")]
    first, second = ((path / "manifest.json").read_bytes() for path in paths)
    assert first == second


def test_a_store_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        open_store(tmp_path / "file" / "store")
