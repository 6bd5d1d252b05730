"""`show`: everything with its sum; and a tree in which each input is written out once."""

import datetime
from dataclasses import replace
from pathlib import Path

from pipeline.artifact.provenance import find_lineage
from pipeline.artifact.store import Artifact, open_store
from pipeline.artifact.workspace import remove_tree
from pipeline.report.show import format_lineage, format_show, make_lineage, make_show
from tests.artifact.sealing import seal_small

_NOW = datetime.datetime(2026, 3, 2, 12, 0, 0, tzinfo=datetime.UTC)


def _seal_chain(root: Path) -> dict[str, Artifact]:
    """Return an adapter made from a text and a dataset, which was made from that text too."""
    store = open_store(root / "store")
    base = seal_small(store, "base")
    text = seal_small(store, "text", inputs={"base": base}, files={"weights": b"12345678" * 200})
    dataset = seal_small(store, "dataset", inputs={"text": text}, files={"rows": b"12"})
    adapter = seal_small(
        store, "adapter", inputs={"text": text, "dataset": dataset}, files={"lora": b"1"}
    )
    return {each.name: each for each in (base, text, dataset, adapter)}


def _date(artifact: Artifact, hours: int) -> Artifact:
    sealed_at = (_NOW - datetime.timedelta(hours=hours)).isoformat(timespec="milliseconds")
    return replace(artifact, sealed_at=sealed_at, seconds=10.0 * hours)


def test_the_list_has_age_short_key_path_and_sum(tmp_path: Path) -> None:
    chain = _seal_chain(tmp_path)
    artifacts = [
        _date(chain["text"], 3),
        replace(chain["dataset"], sealed_at=None),
        _date(chain["adapter"], -1),
    ]
    lines = format_show(make_show(artifacts), _NOW).splitlines()
    assert lines[0].split() == ["artifact", "bytes", "sealed", "key", "path"]
    for line, each, start in zip(
        lines[2:5],
        artifacts,
        ("text      1,600  3 h ago  ", "dataset       2  -  ", "adapter       1  in the future  "),
        strict=True,
    ):
        assert " ".join(line.split()).startswith(" ".join(start.split()))
        assert line.split()[-2:] == [f"{each.key[:12]}...", str(each.path)]
    assert lines[-1] == "3 artifacts, 1,603 bytes"


def test_the_list_of_an_empty_store_says_so() -> None:
    assert format_show(make_show([]), _NOW).splitlines()[-1] == "0 artifacts, 0 bytes"


def test_a_document_of_an_artifact_names_it_and_its_inputs(tmp_path: Path) -> None:
    chain = _seal_chain(tmp_path)
    (shown,) = make_show([chain["dataset"]])["artifacts"]
    dataset, text = chain["dataset"], chain["text"]
    expected = {
        "name": "dataset",
        "key": dataset.key,
        "path": str(dataset.path),
        "bytes": 2,
        "sealed": dataset.sealed_at,
        "seconds": 1.5,
        "inputs": {"text": text.key},
        "input_contents": {"text": text.manifest.content_sha256},
    }
    assert {name: shown[name] for name in expected} == expected


def _draw(wanted: list[Artifact], artifacts: list[Artifact]) -> list[str]:
    """Return the trees' lines with `KEY` for each short key."""
    text = format_lineage(wanted, find_lineage(wanted, artifacts), _NOW)
    for each in artifacts:
        text = text.replace(f"{each.key[:12]}...", f"<{each.name}>")
    return text.splitlines()


def test_a_tree_writes_each_input_out_once(tmp_path: Path) -> None:
    hours = {"base": 30, "text": 3, "dataset": 2, "adapter": 1}
    artifacts = [_date(each, hours[name]) for name, each in _seal_chain(tmp_path).items()]
    assert _draw([artifacts[-1]], artifacts) == [
        "adapter            1 bytes  1 h ago   10.0 s  <adapter>",
        "├─ dataset         2 bytes  2 h ago   20.0 s  <dataset>",
        "│  └─ text     1,600 bytes  3 h ago   30.0 s  <text>",
        "│     └─ base    258 bytes  1 d ago  300.0 s  <base>",
        "└─ text        1,600 bytes  3 h ago   30.0 s  <text>  (above)",
    ]


def test_every_named_artifact_has_a_whole_tree(tmp_path: Path) -> None:
    artifacts = list(_seal_chain(tmp_path).values())
    lines = _draw([artifacts[1], artifacts[2]], artifacts)
    assert [line.strip().partition("  ")[0] for line in lines] == [
        *("text", "└─ base", ""),
        *("dataset", "└─ text", "└─ base"),
    ]


def test_an_input_that_is_gone_is_named_by_key_and_content(tmp_path: Path) -> None:
    chain = _seal_chain(tmp_path)
    remove_tree(chain["text"].path)
    artifacts = [chain["base"], chain["dataset"]]
    line = _draw([chain["dataset"]], artifacts)[1]
    assert line.startswith("└─ text")
    assert f"{chain['text'].key[:12]}..." in line
    assert "not in the store" in line
    assert f"{chain['text'].manifest.content_sha256[:12]}..." in line


def test_an_input_of_other_content_is_marked(tmp_path: Path) -> None:
    chain = _seal_chain(tmp_path)
    remove_tree(chain["text"].path)
    other = seal_small(open_store(tmp_path / "store"), "text", inputs={"base": chain["base"]})
    assert other.key == chain["text"].key
    lines = _draw([chain["dataset"]], [chain["base"], other, chain["dataset"]])
    before, now = (f"{each.manifest.content_sha256[:12]}..." for each in (chain["text"], other))
    assert lines[1].endswith(f"its content is {now} now, not {before}")


def test_a_document_of_a_tree_holds_every_artifact_once(tmp_path: Path) -> None:
    chain = _seal_chain(tmp_path)
    wanted = [chain["adapter"]]
    document = make_lineage(wanted, find_lineage(wanted, list(chain.values())))
    assert document["wanted"] == [chain["adapter"].key]
    assert [each["name"] for each in document["artifacts"]] == [
        "base",
        "text",
        "dataset",
        "adapter",
    ]
    assert document["problems"] == []
