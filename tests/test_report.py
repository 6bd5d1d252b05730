"""Tables for people: aligned, with whole numbers and digests that `sha256sum` gives."""

import hashlib
import json
from pathlib import Path

from pipeline import report
from pipeline.artifact.links import write_links
from pipeline.artifact.store import Artifact, open_store

_TWO = {"b": "2", "a": "1"}
_DOCUMENT = {"rule": "x", "options": {}, "inputs": {}}


def _seal(root: Path, name: str, files: dict[str, str]) -> Artifact:
    store = open_store(root / "store")
    with store.workspace(name * 64, name) as work:  # type: ignore[arg-type]
        (work / "out").mkdir()
        for path, text in files.items():
            (work / "out" / path).write_text(text)
        return store.seal(
            work / "out",
            key=(name * 64)[:64],  # type: ignore[arg-type]
            name=name,
            document=_DOCUMENT,
            engine="venv",
            seconds=2.04,
        )


def test_one_file_is_named_itself_and_many_by_their_listing(tmp_path: Path) -> None:
    sealed = {
        "one": _seal(tmp_path, "one", {"model.gguf": "weights"}),
        "two": _seal(tmp_path, "two", _TWO),
    }
    links = write_links(tmp_path / "out", sealed)
    one, two = report.make_artifact_table(sealed, links).splitlines()[-2:]
    digest = hashlib.sha256(b"weights").hexdigest()
    assert one.split() == [str(tmp_path / "out" / "one" / "model.gguf"), "7", "2.0", digest]
    digests = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in _TWO.items()}
    listing = "".join(f"{digests[path]}  {path}\n" for path in ("a", "b"))
    assert two.split()[1:] == ["2", "2.0", hashlib.sha256(listing.encode()).hexdigest()]


def test_results_show_loss_and_every_models_accuracy(tmp_path: Path) -> None:
    metrics = {"loss_before": 5.5, "loss_after": 0.25, "steps": 10}
    before_export = {
        "base": {"correct": 0, "total": 8},
        "distilled": {"correct": 8, "total": 8},
    }
    served = {"BF16": {"correct": 7, "total": 8}}
    sealed = {
        "adapter": _seal(tmp_path, "adapter", {"metrics.json": json.dumps(metrics)}),
        "answers-checkpoint": _seal(tmp_path, "c", {"scores.json": json.dumps(before_export)}),
        "answers": _seal(tmp_path, "s", {"scores.json": json.dumps(served)}),
    }
    text = report.make_result_table(sealed)
    assert "held-out loss: 5.5000 before, 0.2500 after 10 steps" in text
    assert text.splitlines()[-3:] == [
        "base model                         0.0 %        0   8",
        "distilled model, before export   100.0 %        8   8",
        "distilled model, GGUF BF16        87.5 %        7   8",
    ]
    assert report.make_result_table({}) == ""
