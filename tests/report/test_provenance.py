"""`show --provenance`: who made what, how, from which bytes; and whether the chain is whole."""

import datetime
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact.key import make_digest, make_key
from pipeline.artifact.provenance import find_lineage, read_statement
from pipeline.artifact.rule import Digest
from pipeline.artifact.seal import seal
from pipeline.artifact.store import Artifact, Store, open_store
from pipeline.artifact.workspace import make_workspace, remove_tree
from pipeline.engine.image import IMAGES, make_environment_document
from pipeline.report.provenance import format_provenance, make_provenance
from tests.artifact.sealing import make_manifest, write_files

_NOW = datetime.datetime(2026, 3, 2, 12, 0, 0, tzinfo=datetime.UTC)
_USERS = ("a" * 64 + "  config.json", "b" * 64 + "  model.safetensors")
_ROWS = "c" * 64


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def _seal(
    store: Store,
    name: str,
    image: str,
    *,
    options: Mapping[str, Any],
    inputs: Mapping[str, Artifact] | None = None,
) -> Artifact:
    """Seal as an image's stage would, whose source is `job` and a module of its own."""
    manifest = make_manifest(name, inputs)
    environment = make_environment_document(IMAGES[image])
    source = {"pipeline/job.py": Digest("1" * 64), f"pipeline/demo/{name}.py": Digest("2" * 64)}
    digests = {"environment": make_digest(environment), "source": make_digest(source)}
    manifest = replace(
        manifest,
        document={**manifest.document, "options": options, **digests},
        environment=environment,
        source=source,
    )
    key = make_key(manifest.document)
    with make_workspace(store.workspaces, name) as work:
        out = write_files(work / "out", {f"{name}.bin": name.encode()})
        return seal(store, out, key=key, name=name, manifest=manifest, seconds=1.5)


def _seal_chain(store: Store) -> dict[str, Artifact]:
    base = _seal(store, "base", "convert", options={"files": list(_USERS)})
    rows = _seal(store, "rows", "train", options={"sha256": _ROWS})
    text = _seal(store, "text", "convert", options={"cpu_threads": 2}, inputs={"base": base})
    dataset = _seal(store, "dataset", "train", options={}, inputs={"text": text, "rows": rows})
    return {each.name: each for each in (base, rows, text, dataset)}


def _make(store: Store, wanted: Artifact) -> dict[str, Any]:
    lineage = find_lineage([wanted], store.read_all()[0])
    return make_provenance([wanted], lineage, [read_statement(each) for each in lineage.artifacts])


def test_a_document_says_of_each_artifact_who_made_it_and_how(store: Store) -> None:
    chain = _seal_chain(store)
    document = _make(store, chain["dataset"])
    assert document["wanted"] == [chain["dataset"].key]
    described = {each["name"]: each for each in document["artifacts"]}
    assert set(described) == set(chain)
    text = described["text"]
    expected = {"engine": "venv", "stage": "demo.text", "image": "convert"}
    assert {name: text[name] for name in expected} == expected
    assert set(text["versions"]) == {"tristill"}
    assert text["options"] == {"cpu_threads": 2}
    assert described["base"]["options"] == {"files": list(_USERS)}
    assert [file["path"] for file in text["files"]] == ["text.bin"]


def test_a_document_holds_the_statements_as_they_are_sealed(store: Store) -> None:
    chain = _seal_chain(store)
    document = _make(store, chain["dataset"])
    for each, statement in zip(document["artifacts"], document["statements"], strict=True):
        text = (chain[each["name"]].path / "manifest.json").read_text()
        assert statement == json.loads(text)


def test_images_and_source_files_stand_once(store: Store) -> None:
    chain = _seal_chain(store)
    document = _make(store, chain["dataset"])
    for name in ("convert", "train"):
        environment = make_environment_document(IMAGES[name])
        assert document["environments"][make_digest(environment)] == environment
    assert len(document["environments"]) == 2
    paths = [each["path"] for each in document["sources"]]
    assert sorted(paths) == sorted(set(paths))
    (job,) = (each for each in document["sources"] if each["path"] == "pipeline/job.py")
    assert job["stages"] == ["demo.base", "demo.dataset", "demo.rows", "demo.text"]


def test_a_whole_chain_is_consistent(store: Store) -> None:
    document = _make(store, _seal_chain(store)["dataset"])
    assert (document["consistent"], document["problems"]) == (True, [])
    assert format_provenance(document, _NOW).splitlines()[-1].startswith("consistent")


def test_a_chain_with_an_artifact_gone_is_not(store: Store) -> None:
    chain = _seal_chain(store)
    remove_tree(chain["base"].path)
    document = _make(store, chain["dataset"])
    assert document["consistent"] is False
    (problem,) = document["problems"]
    expected = {
        "artifact": "text",
        "artifact_key": chain["text"].key,
        "input": "base",
        "input_key": chain["base"].key,
        "recorded": chain["base"].manifest.content_sha256,
        "found": None,
        "what": "not in the store, or not readable there",
    }
    assert problem == expected
    told = format_provenance(document, _NOW)
    assert "NOT consistent" in told
    assert told.count(chain["base"].key) == 2, "by what was made from it, and as the problem"


def test_a_chain_with_other_content_is_not(store: Store) -> None:
    chain = _seal_chain(store)
    text = chain["text"]
    changed = replace(text, manifest=replace(text.manifest, files=chain["rows"].manifest.files))
    lineage = find_lineage([chain["dataset"]], [chain["base"], chain["rows"], changed])
    document = make_provenance(
        [chain["dataset"]], lineage, [read_statement(each) for each in lineage.artifacts]
    )
    assert document["consistent"] is False
    (problem,) = document["problems"]
    assert problem["recorded"] == text.manifest.content_sha256
    assert problem["found"] == chain["rows"].manifest.content_sha256
    told = format_provenance(document, _NOW)
    assert "NOT consistent" in told
    assert problem["found"] in told


def test_text_for_people_goes_back_to_every_input_digest(store: Store) -> None:
    chain = _seal_chain(store)
    told = format_provenance(_make(store, chain["dataset"]), _NOW)
    assert told.startswith("dataset\n")
    for each in chain.values():
        (file,) = each.manifest.files
        assert f"{file.sha256}  {file.size_bytes}  {file.path}" in told
        assert each.key in told
    for digest in (*_USERS, _ROWS):
        assert told.count(digest) == 1
    assert "engine venv, tristill " in told
    llama = make_environment_document(IMAGES["convert"])["llama"]
    assert isinstance(llama, dict)
    for pin in (*llama["flags"], llama["lock"]):
        assert told.count(pin) == 1


def test_a_source_file_in_two_versions_names_the_stages(store: Store) -> None:
    chain = _seal_chain(store)
    document = _make(store, chain["text"])
    document["sources"].append(
        {"path": "pipeline/job.py", "sha256": "3" * 64, "stages": ["demo.text"]}
    )
    lines = format_provenance(document, _NOW).splitlines()
    (line,) = (each for each in lines if "3" * 64 in each)
    assert line.endswith("pipeline/job.py        (demo.text)")


def test_an_environment_of_no_image_today_is_shown_all_the_same(store: Store) -> None:
    text = _seal_chain(store)["text"]
    old = replace(text, manifest=replace(text.manifest, environment={"locks": {"old.lock": "0"}}))
    lineage = find_lineage([old], [old])
    document = make_provenance([old], lineage, [read_statement(old)])
    assert document["artifacts"][0]["image"] is None
    assert "locks.old.lock  0" in format_provenance(document, _NOW)
