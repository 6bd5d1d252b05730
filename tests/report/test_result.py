"""What a build has made: aligned, with whole numbers and digests that `sha256sum` gives."""

import hashlib
import json
from pathlib import Path

from pipeline.artifact.links import write_link
from pipeline.artifact.store import open_store
from pipeline.report.result import make_artifact_table, make_result_table
from tests.artifact.sealing import seal_small

_TWO = {"b": b"2", "a": b"1"}


def test_one_file_is_named_itself_and_many_by_their_listing(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    sealed = {
        "one": seal_small(store, "one", files={"model.gguf": b"weights"}),
        "two": seal_small(store, "two", files=_TWO),
    }
    links = {name: write_link(store.out, artifact) for name, artifact in sealed.items()}
    one, two = make_artifact_table(sealed, links).splitlines()[-2:]
    digest = hashlib.sha256(b"weights").hexdigest()
    assert one.split() == [str(tmp_path / "out" / "one" / "model.gguf"), "7", "1.5", digest]
    digests = {path: hashlib.sha256(content).hexdigest() for path, content in _TWO.items()}
    listing = "".join(f"{digests[path]}  {path}\n" for path in ("a", "b"))
    assert two.split()[1:] == ["2", "1.5", hashlib.sha256(listing.encode()).hexdigest()]


def test_a_gguf_is_named_itself_beside_its_checks(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    files = {"model.gguf": b"weights", "checks.json": b"{}"}
    sealed = {"one": seal_small(store, "one", files=files)}
    links = {name: write_link(store.out, artifact) for name, artifact in sealed.items()}
    (one,) = make_artifact_table(sealed, links).splitlines()[-1:]
    digest = hashlib.sha256(b"weights").hexdigest()
    assert one.split() == [str(tmp_path / "out" / "one" / "model.gguf"), "7", "1.5", digest]


def test_results_show_loss_and_every_models_accuracy(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    written: dict[str, dict[str, object]] = {
        "adapter": {"metrics.json": {"loss_before": 5.5, "loss_after": 0.25, "steps": 10}},
        "answers-checkpoint": {
            "scores.json": {
                "base": {"correct": 0, "total": 8},
                "distilled": {"correct": 8, "total": 8},
            }
        },
        "answers": {"scores.json": {"BF16": {"correct": 7, "total": 8}}},
        "divergence": {
            "divergence.json": {
                "BF16": {"tokens": 4002, "perplexity": 1.00122},
                "Q4_K_M": {
                    "tokens": 4002,
                    "perplexity": 1.002258,
                    "kl_divergence": {"mean": 0.00104547},
                    "flips": 0.00025,
                },
            }
        },
    }
    sealed = {
        name: seal_small(
            store,
            name,
            files={path: json.dumps(document).encode() for path, document in files.items()},
        )
        for name, files in written.items()
    }
    text = make_result_table(sealed)
    assert "held-out loss: 5.5000 before, 0.2500 after 10 steps" in text
    assert text.splitlines()[5:8] == [
        "base model                         0.0 %    0.0 to 32.4        0   8",
        "distilled model, before export   100.0 %  67.6 to 100.0        8   8",
        "distilled model, GGUF BF16        87.5 %   52.9 to 97.8        7   8",
    ]
    assert text.splitlines()[-4:] == [
        "on 4,002 held-out tokens  perplexity  KL divergence   flips",
        "------------------------  ----------  -------------  ------",
        "BF16                          1.0012       0.000000  0.00 %",
        "Q4_K_M                        1.0023       0.001045  0.03 %",
    ]
    assert make_result_table({}) == ""
