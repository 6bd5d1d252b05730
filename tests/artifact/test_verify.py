"""Verify names each damaged file; quarantine takes the artifact out of reach, with a note."""

import json
from pathlib import Path

import pytest

from pipeline.artifact.history import History
from pipeline.artifact.quarantine import find_note, quarantine
from pipeline.artifact.store import Damage, Store, open_store
from pipeline.artifact.verify import find_damage
from pipeline.artifact.workspace import remove_tree
from tests.artifact.sealing import damage_file, seal_small
from tests.artifact.small_build import build_small, make_small_steps


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


@pytest.mark.parametrize(
    ("how", "path", "what"),
    [
        ("flipped", "sub/weights", "its sha256 is "),
        ("truncated", "sub/weights", "255 bytes, not 256"),
        ("missing", "sub/weights", "missing"),
        ("extra", "sub/extra", "not in the manifest"),
    ],
)
def test_the_damaged_file_is_named_and_no_other(
    store: Store, how: str, path: str, what: str
) -> None:
    sealed, sound = seal_small(store), seal_small(store, "base")
    assert find_damage([sealed, sound]) == []
    damage_file(sealed.path / "sub" / "weights", how)
    (damage,) = find_damage([sealed, sound])
    assert (damage.artifact, damage.path) == (sealed.path.name, path)
    assert damage.what.startswith(what)


def test_an_extra_empty_directory_is_named(store: Store) -> None:
    sealed = seal_small(store)
    sealed.path.chmod(0o755)
    (sealed.path / "more").mkdir()
    assert [each.path for each in find_damage([sealed])] == ["more"]


def test_every_flipped_bit_of_a_manifest_is_found(store: Store) -> None:
    sealed = seal_small(store)
    path = sealed.path / "manifest.json"
    path.chmod(0o644)
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
        )
        artifacts, unreadable = store.read_all()
        assert {each.path for each in unreadable + find_damage(artifacts)} >= {"manifest.json"}
    path.write_bytes(content)
    assert find_damage(store.read_all()[0]) == []


@pytest.mark.parametrize("part", ["document", "environment", "source"])
def test_a_manifest_is_held_against_itself_where_nothing_was_noted(store: Store, part: str) -> None:
    sealed = seal_small(store)
    remove_tree(store.root / ".logs")
    path = sealed.path / "manifest.json"
    path.chmod(0o644)
    statement = json.loads(path.read_text())
    parameters = statement["predicate"]["buildDefinition"]["internalParameters"]
    parameters["key_document" if part == "document" else part]["options"] = {"rank": 17}
    path.write_text(json.dumps(statement))
    (damage,) = find_damage(store.read_all()[0])
    assert damage.path == "manifest.json"


def test_an_artifact_that_is_removed_meanwhile_is_no_damage(store: Store) -> None:
    sealed = seal_small(store)
    remove_tree(sealed.path)
    assert find_damage([sealed]) == []


def test_quarantine_moves_the_artifact_and_notes_what_was_found(store: Store) -> None:
    sealed = seal_small(store)
    found = [
        Damage(artifact=sealed.path.name, path="sub/weights", what="missing"),
        Damage(artifact=sealed.path.name, path="config.json", what="missing"),
    ]
    (place,) = quarantine(store, found).values()
    assert store.find(sealed.key, "text") is None
    assert (place / "config.json").read_bytes() == b"{}"
    note = json.loads(place.with_name(f"{place.name}.json").read_text())
    assert [each["path"] for each in note["damage"]] == ["sub/weights", "config.json"]
    again = seal_small(store)
    (second,) = quarantine(store, [Damage(artifact=again.path.name, path="x", what="y")]).values()
    assert second != place
    assert place.is_dir()
    assert (
        find_note(store, sealed.key, "text")
        == json.loads(second.with_name(f"{second.name}.json").read_text())["found_at"]
    )


def test_what_another_process_has_moved_is_passed_over(store: Store) -> None:
    gone = Damage(artifact=f"{'0' * 64}-text", path="x", what="missing")
    assert quarantine(store, [gone]) == {}
    assert list((store.root / ".quarantine").iterdir()) == []


def test_a_damaged_artifact_is_built_anew_with_the_reason(store: Store) -> None:
    sealed = build_small(store)
    damage_file(sealed["rows"].path / "train.jsonl", "flipped")
    quarantine(store, find_damage(list(sealed.values())))
    steps = make_small_steps(store)
    assert [bool(step.artifact) for step in steps] == [True, False]
    assert "in quarantine" in History(store, "small").explain_build(steps[1], ["rows"])
    assert build_small(store)["rows"].manifest == sealed["rows"].manifest
