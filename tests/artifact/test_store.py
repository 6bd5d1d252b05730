"""The store: whole or not there, read-only, and damage is named."""

from pathlib import Path

import pytest

from pipeline.artifact.key import make_key
from pipeline.artifact.rule import Key
from pipeline.artifact.store import Artifact, Store, find_damage, open_store, remove_tree
from pipeline.errors import StageError, StoreError, UsageError

_DOCUMENT = {"rule": "text", "options": {"cpu_threads": 2}, "inputs": {}}
_KEY = make_key(_DOCUMENT)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def _seal(store: Store, *, key: Key = _KEY) -> Artifact:
    with store.workspace(key, "text") as work:
        out = work / "out"
        (out / "sub").mkdir(parents=True)
        (out / "config.json").write_text("{}")
        (out / "sub" / "weights").write_bytes(bytes(range(256)))
        return store.seal(out, key=key, name="text", document=_DOCUMENT, engine="venv", seconds=1.5)


def test_a_sealed_artifact_is_found_with_its_files(store: Store) -> None:
    sealed = _seal(store)
    found = store.find(_KEY, "text")
    assert found == sealed
    assert [(file.path, file.size_bytes) for file in sealed.manifest.files] == [
        ("config.json", 2),
        ("sub/weights", 256),
    ]
    assert sealed.manifest.files[0].sha256 == (
        "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    )
    assert sealed.manifest.document == _DOCUMENT
    assert sealed.seconds == 1.5


def test_a_sealed_artifact_is_read_only(store: Store) -> None:
    path = _seal(store).path
    assert [
        oct(each.stat().st_mode & 0o777) for each in (path, path / "sub", path / "config.json")
    ] == [
        "0o555",
        "0o555",
        "0o444",
    ]


def test_an_exception_while_making_leaves_nothing(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), store.workspace(_KEY, "text") as work:
        (work / "half").write_text("half")
        raise KeyboardInterrupt
    assert list((store.root / ".tmp").iterdir()) == []
    assert store.find(_KEY, "text") is None


def test_leftovers_of_a_dead_process_are_swept(store: Store) -> None:
    leftover = store.root / ".tmp" / f"{_KEY[:16]}-text.dead"
    leftover.mkdir(parents=True)
    (leftover / "half").write_text("half")
    _seal(store)
    assert list((store.root / ".tmp").iterdir()) == []


def test_an_output_that_holds_nothing_is_refused(store: Store) -> None:
    with store.workspace(_KEY, "text") as work, pytest.raises(StageError, match="made no artifact"):
        (work / "out").mkdir()
        store.seal(
            work / "out", key=_KEY, name="text", document=_DOCUMENT, engine="venv", seconds=0
        )


def test_an_output_with_a_link_is_refused(store: Store) -> None:
    with store.workspace(_KEY, "text") as work, pytest.raises(StageError) as caught:
        (work / "out").mkdir()
        (work / "out" / "file").write_text("x")
        (work / "out" / "link").symlink_to("/etc/passwd")
        store.seal(
            work / "out", key=_KEY, name="text", document=_DOCUMENT, engine="venv", seconds=0
        )
    assert caught.value.on == "link"


def _damage(path: Path, how: str) -> None:
    path.parent.chmod(0o755)
    if path.exists():
        path.chmod(0o644)
    if how == "flipped":
        content = bytearray(path.read_bytes())
        content[100] ^= 1
        path.write_bytes(content)
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "missing":
        path.unlink()
    else:
        path.with_name("extra").write_text("x")


@pytest.mark.parametrize(
    ("how", "path", "what"),
    [
        ("flipped", "sub/weights", "its sha256 differs from the manifest's"),
        ("truncated", "sub/weights", "255 bytes, not 256"),
        ("missing", "sub/weights", "missing"),
        ("extra", "sub/extra", "not in the manifest"),
    ],
)
def test_verify_names_the_damaged_file(store: Store, how: str, path: str, what: str) -> None:
    sealed = _seal(store)
    assert find_damage(sealed, deep=True) == []
    _damage(sealed.path / "sub" / "weights", how)
    (damage,) = find_damage(sealed, deep=True)
    assert (damage.artifact, damage.path, damage.what) == (sealed.path.name, path, what)


@pytest.mark.parametrize("how", ["truncated", "missing"])
def test_a_hit_refuses_a_file_of_another_size(store: Store, how: str) -> None:
    _damage(_seal(store).path / "sub" / "weights", how)
    with pytest.raises(StoreError, match="damaged"):
        store.find(_KEY, "text")


@pytest.mark.parametrize("content", ["", "{", "[]", '{"subject": 3}'])
def test_a_hit_refuses_an_unreadable_manifest(store: Store, content: str) -> None:
    path = _seal(store).path
    path.chmod(0o755)
    (path / "manifest.json").chmod(0o644)
    (path / "manifest.json").write_text(content)
    with pytest.raises(StoreError, match="damaged"):
        store.find(_KEY, "text")


def test_two_stores_give_the_same_manifest(tmp_path: Path) -> None:
    paths = [_seal(open_store(tmp_path / name)).path for name in ("one", "two")]
    first, second = ((path / "manifest.json").read_bytes() for path in paths)
    assert first == second


def test_a_store_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        open_store(tmp_path / "file" / "store")


def test_remove_tree_takes_read_only_directories(store: Store) -> None:
    path = _seal(store).path
    remove_tree(path)
    assert not path.exists()
