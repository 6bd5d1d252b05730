"""The artifact that a person means, and all that it was made from."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.artifact import provenance
from pipeline.artifact.links import write_link
from pipeline.artifact.provenance import find_artifact, find_lineage, read_statement
from pipeline.artifact.rule import Key
from pipeline.artifact.store import Artifact, Store, open_store
from pipeline.artifact.workspace import remove_tree
from pipeline.errors import UsageError
from tests.artifact.sealing import damage_file, seal_small


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def _seal_two(store: Store) -> list[Artifact]:
    return [
        seal_small(store, "text", files={"tokenizer.json": b"{}", "weights": b"big"}),
        seal_small(store, "gguf", files={"model.gguf": b"GGUF"}),
    ]


def test_a_name_means_what_was_sealed_last(store: Store) -> None:
    old, new = (seal_small(store, "text", options={"steps": steps}) for steps in (1, 2))
    assert find_artifact("text", [old, new]) == new
    assert find_artifact(old.path.name, [old, new]) == old


def test_a_key_means_its_artifact_by_six_digits_and_more(store: Store) -> None:
    text, gguf = _seal_two(store)
    for count in (6, 12, 63, 64):
        assert find_artifact(gguf.key[:count], [text, gguf]) == gguf
    assert find_artifact(f"{text.key[:12]}...", [text, gguf]) == text


def test_five_digits_mean_nothing(store: Store) -> None:
    artifacts = _seal_two(store)
    with pytest.raises(UsageError, match="no artifact is meant"):
        find_artifact(artifacts[0].key[:5], artifacts)


def test_the_same_start_of_two_keys_names_both(store: Store) -> None:
    text, gguf = _seal_two(store)
    alike = [
        replace(each, key=Key(f"abcdef{digit}".ljust(64, "0")), path=Path(f"abcdef{digit}"))
        for each, digit in ((text, 1), (gguf, 2))
    ]
    with pytest.raises(UsageError, match="several artifacts") as caught:
        find_artifact("abcdef", alike)
    assert caught.value.why == "abcdef1, abcdef2"
    assert find_artifact("abcdef2", alike) == alike[1]


def test_a_digest_means_what_holds_it(store: Store) -> None:
    text, gguf = _seal_two(store)
    assert find_artifact(hashlib.sha256(b"GGUF").hexdigest(), [text, gguf]) == gguf
    assert find_artifact(text.manifest.content_sha256, [text, gguf]) == text


def test_a_path_means_the_artifact_that_it_is_in(store: Store) -> None:
    text, gguf = _seal_two(store)
    link = write_link(store.out / "mine", gguf)
    for path in (gguf.path, gguf.path / "model.gguf", gguf.path / "manifest.json"):
        assert find_artifact(str(path), [text, gguf]) == gguf
    for path in (link, link / "model.gguf"):
        assert find_artifact(str(path), [text, gguf]) == gguf


def test_a_relative_path_is_seen_from_where_one_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifacts = _seal_two(store)
    write_link(store.out / "mine", artifacts[1])
    monkeypatch.chdir(store.out / "mine" / "gguf")
    assert find_artifact("model.gguf", artifacts) == artifacts[1]
    assert find_artifact(".", artifacts) == artifacts[1]


def test_a_copied_file_means_what_it_was_copied_from(store: Store, tmp_path: Path) -> None:
    artifacts = _seal_two(store)
    copy = shutil.copy(artifacts[1].path / "model.gguf", tmp_path / "best of all.gguf")
    assert find_artifact(str(copy), artifacts) == artifacts[1]


def test_a_changed_copy_means_nothing(store: Store, tmp_path: Path) -> None:
    artifacts = _seal_two(store)
    for content in (b"gguf", b"GGUF and more"):
        (tmp_path / "model.gguf").write_bytes(content)
        with pytest.raises(UsageError, match="no artifact is meant") as caught:
            find_artifact(str(tmp_path / "model.gguf"), artifacts)
        assert "no artifact holds a file" in caught.value.why


def test_a_copied_directory_means_its_artifact_until_it_changes(
    store: Store, tmp_path: Path
) -> None:
    artifacts = _seal_two(store)
    copy = tmp_path / "copy"
    shutil.copytree(artifacts[0].path, copy)
    assert find_artifact(str(copy), artifacts) == artifacts[0]
    damage_file(copy / "weights", "flipped")
    with pytest.raises(UsageError, match="no artifact is meant") as caught:
        find_artifact(str(copy), artifacts)
    assert "other bytes" in caught.value.why


def test_any_other_directory_means_nothing(store: Store) -> None:
    artifacts = _seal_two(store)
    for path in (store.root, store.root.parent, store.root / ".logs"):
        with pytest.raises(UsageError, match="no artifact is meant"):
            find_artifact(str(path), artifacts)


def test_a_file_of_several_artifacts_means_the_one_that_calls_it_so(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(provenance, "say", said.append)
    first = seal_small(store, "first", files={"tokenizer.json": b"{}"})
    second = seal_small(store, "second", files={"other.json": b"{}"})
    for name, meant, other in (
        ("tokenizer.json", first, second),
        ("other.json", second, first),
        ("third.json", second, first),
    ):
        (tmp_path / name).write_bytes(b"{}")
        assert find_artifact(str(tmp_path / name), [first, second]) == meant
        assert other.path.name in said.pop()


@pytest.mark.parametrize("meant", ["txet", "", "x" * 5000, "no/such/file", "\0", "f" * 64])
def test_what_means_nothing_is_told_what_there_is(store: Store, meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_artifact(meant, _seal_two(store))
    assert caught.value.on == meant
    assert "the store holds gguf, text" in caught.value.why
    assert ("did you mean text?" in caught.value.why) == (meant == "txet")


def test_an_empty_store_says_that_it_is_empty() -> None:
    with pytest.raises(UsageError) as caught:
        find_artifact("adapter", [])
    assert "the store is empty" in caught.value.why


def _seal_chain(store: Store) -> list[Artifact]:
    base = seal_small(store, "base")
    text = seal_small(store, "text", inputs={"base": base}, files={"weights": b"text"})
    rows = seal_small(store, "rows", files={"rows": b"rows"})
    dataset = seal_small(store, "dataset", inputs={"text": text, "rows": rows})
    return [dataset, rows, text, base]


def test_a_lineage_holds_everything_once_inputs_first(store: Store) -> None:
    artifacts = _seal_chain(store)
    other = seal_small(store, "other")
    found = find_lineage(artifacts[:1], [*artifacts, other])
    names = [each.name for each in found.artifacts]
    assert sorted(names) == ["base", "dataset", "rows", "text"]
    assert names.index("base") < names.index("text") < names.index("dataset")
    assert names.index("rows") < names.index("dataset")
    assert [each.label for each in found.inputs[artifacts[0].key]] == ["rows", "text"]
    assert [each.problem for inputs in found.inputs.values() for each in inputs] == [None] * 3


def test_a_lineage_of_several_holds_what_they_share_once(store: Store) -> None:
    artifacts = _seal_chain(store)
    found = find_lineage([artifacts[2], artifacts[0]], artifacts)
    assert len(found.artifacts) == len({each.key for each in found.artifacts}) == 4


def test_an_input_that_is_gone_is_named_by_what_it_went_into(store: Store) -> None:
    dataset, rows, text, base = _seal_chain(store)
    remove_tree(text.path)
    found = find_lineage([dataset], store.read_all()[0])
    assert [each.name for each in found.artifacts] == ["rows", "dataset"]
    (gone,) = (each for each in found.inputs[dataset.key] if each.problem)
    assert (gone.label, gone.key, gone.artifact) == ("text", text.key, None)
    assert gone.recorded == text.manifest.content_sha256


def test_an_input_of_other_content_breaks_the_chain(store: Store) -> None:
    dataset, rows, text, base = _seal_chain(store)
    remove_tree(text.path)
    other = seal_small(store, "text", inputs={"base": base}, files={"weights": b"other"})
    assert other.key == text.key
    found = find_lineage([dataset], store.read_all()[0])
    (changed,) = (each for each in found.inputs[dataset.key] if each.problem)
    assert changed.problem is not None
    assert text.manifest.content_sha256[:12] in changed.problem
    assert other.manifest.content_sha256[:12] in changed.problem


def test_an_input_without_a_recorded_digest_breaks_the_chain(store: Store) -> None:
    dataset, *others = _seal_chain(store)
    unrecorded = replace(dataset, manifest=replace(dataset.manifest, inputs={}))
    found = find_lineage([unrecorded], [unrecorded, *others])
    problems = [each.problem for each in found.inputs[dataset.key]]
    assert problems == ["its digest is not recorded"] * 2


def test_the_statement_is_the_one_in_the_store(store: Store) -> None:
    artifact = seal_small(store)
    statement = read_statement(artifact)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert [each["name"] for each in statement["subject"]] == ["config.json", "sub/weights"]
