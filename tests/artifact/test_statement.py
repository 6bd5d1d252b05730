"""manifest.json is what in-toto and SLSA publish: their own classes read all that is in it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementMessage

from pipeline.artifact.store import Artifact, open_store
from tests.artifact.sealing import seal_small


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    """Return one that was made from two others."""
    store = open_store(tmp_path / "store")
    text = seal_small(store, "text", options={"cpu_threads": 2})
    rows = seal_small(store, "rows", files={"rows.jsonl": b"{}"})
    return seal_small(store, "dataset", inputs={"text": text, "rows": rows}, options={"seed": 1})


@pytest.fixture
def statement(artifact: Artifact) -> dict[str, Any]:
    return dict(json.loads((artifact.path / "manifest.json").read_text()))


def test_a_manifest_is_an_in_toto_statement(artifact: Artifact) -> None:
    text = (artifact.path / "manifest.json").read_text()
    message = json_format.Parse(text, StatementMessage(), ignore_unknown_fields=False)
    Statement.copy_from_pb(message).validate()
    assert message.type == "https://in-toto.io/Statement/v1"
    assert message.predicate_type == "https://slsa.dev/provenance/v1"
    for subject, file in zip(message.subject, artifact.manifest.files, strict=True):
        assert (subject.name, dict(subject.digest)) == (file.path, {"sha256": file.sha256})


def test_its_predicate_is_slsa_provenance(artifact: Artifact, statement: dict[str, Any]) -> None:
    provenance = json_format.ParseDict(
        statement["predicate"], Provenance(), ignore_unknown_fields=False
    )
    definition, details = provenance.build_definition, provenance.run_details
    for descriptor in definition.resolved_dependencies:
        ResourceDescriptor.copy_from_pb(descriptor).validate()
    digests = {each.name: each.digest["dirHash"] for each in definition.resolved_dependencies}
    assert digests == artifact.manifest.inputs
    assert json_format.MessageToDict(definition.external_parameters) == {"seed": 1.0}
    assert details.builder.id.endswith(":venv")
    assert set(details.builder.version) == {"tristill"}


@pytest.mark.parametrize("where", ["statement", "predicate"])
def test_an_unknown_field_would_be_refused(statement: dict[str, Any], where: str) -> None:
    """Else the two tests above would hold nothing."""
    statement["times"] = statement["predicate"]["times"] = "12:00"
    document, message = {
        "statement": (statement, StatementMessage()),
        "predicate": (statement["predicate"], Provenance()),
    }[where]
    with pytest.raises(json_format.ParseError, match="times"):
        json_format.ParseDict(document, message, ignore_unknown_fields=False)


def test_the_mandated_fields_hold_what_is_mandated(statement: dict[str, Any]) -> None:
    names = [subject["name"] for subject in statement["subject"]]
    assert sorted(names) == sorted(set(names)) != []
    assert all(len(subject["digest"]["sha256"]) == 64 for subject in statement["subject"])
    definition = statement["predicate"]["buildDefinition"]
    assert isinstance(definition["externalParameters"], dict)
    assert len(definition["resolvedDependencies"]) == 2
    for each in definition["resolvedDependencies"]:
        assert "uri" in each or "digest" in each
    for uri in _list_uris(statement):
        assert urlsplit(uri).scheme in ("https", "urn"), uri


def _list_uris(statement: dict[str, Any]) -> Iterator[str]:
    predicate = statement["predicate"]
    yield from (statement["_type"], statement["predicateType"])
    yield predicate["buildDefinition"]["buildType"]
    yield predicate["runDetails"]["builder"]["id"]
    yield from (each["uri"] for each in predicate["buildDefinition"]["resolvedDependencies"])
