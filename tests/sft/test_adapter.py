"""Labels equal masks by exact ids; the same bytes twice; runs that learn nothing fail."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from trl import SFTTrainer

from pipeline.checkpoint.weights import open_weights
from pipeline.data.packing import pack_rows
from pipeline.errors import StageError
from pipeline.sft import adapter, model
from pipeline.sft.arrow import read_split
from pipeline.sft.loss import read_loss
from tests.data.arrow_files import HandRow, write_arrow
from tests.tiny_text import write_text_checkpoint

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore::FutureWarning:transformers")]

ROOT = Path(__file__).parents[2]
OPTIONS = adapter.Options(
    method="lora",
    rank=4,
    alpha=8.0,
    dropout=0.0,
    target_modules=("q_proj", "v_proj", "down_proj", "up_proj"),
    learning_rate=1e-2,
    warmup_steps=1,
    schedule="cosine",
    weight_decay=0.0,
    batch_size=4,
    gradient_accumulation=2,
    pack_tokens=0,
    max_steps=3,
    epochs=1.0,
    max_grad_norm=1.0,
    seed=1,
    eval_rows=8,
    cpu_threads=1,
)


def train(text: Path, dataset: Path, out: Path, **changes: Any) -> dict[str, torch.Tensor]:
    out.mkdir()
    options = dataclasses.replace(OPTIONS, **changes)
    adapter.run({"text": text, "dataset": dataset}, options, out)
    tensors: dict[str, torch.Tensor] = load_file(out / "adapter_model.safetensors")
    return tensors


def make_trainer(text: Path, dataset: Path, scratch: Path, **changes: Any) -> SFTTrainer:
    options = dataclasses.replace(OPTIONS, **changes)
    adapted = adapter.make_adapted(model.read_base(text, "lora"), options)
    rows = read_split(dataset / "train.arrow")
    if options.pack_tokens:
        rows = pack_rows(rows, options.pack_tokens)
    return adapter.make_trainer(adapted, rows, text=text, options=options, scratch=scratch)


def test_labels_of_collated_batches_are_the_mask(text: Path, dataset: Path, tmp_path: Path) -> None:
    with pa.memory_map(str(dataset / "train.arrow")) as source:
        rows = pa.ipc.open_stream(source).read_all().to_pylist()
    expected = {tuple(r["input_ids"]): r["completion_mask"] for r in rows}
    seen = 0
    for batch in make_trainer(text, dataset, tmp_path).get_train_dataloader():
        triples = (batch[name].tolist() for name in ("input_ids", "labels", "attention_mask"))
        for ids, labels, attention in zip(*triples, strict=True):
            length = sum(attention)
            mask = expected[tuple(ids[:length])]
            wanted = [i if m else -100 for i, m in zip(ids, mask, strict=False)]
            assert labels == wanted + [-100] * (len(ids) - length)
            seen += 1
    assert seen == len(rows)


def test_the_loss_is_weighted_by_token(text: Path, dataset: Path, tmp_path: Path) -> None:
    trainer = make_trainer(text, dataset, tmp_path)
    rows = read_split(dataset / "held_out.arrow", limit=5)
    total, count = 0.0, 0
    with torch.no_grad():
        for row in rows:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
            logs = trainer.model(input_ids=ids).logits[0].log_softmax(-1)
            for at in range(1, len(labels)):
                if labels[at] != -100:
                    total, count = total - logs[at - 1, labels[at]].item(), count + 1
    found = [
        read_loss(trainer.model, rows, collate=trainer.data_collator, batch_size=size)
        for size in (1, 2, 5)
    ]
    assert found == pytest.approx([total / count] * 3, rel=1e-5)


def test_the_trainer_s_loss_on_packs_is_that_of_their_rows(
    text: Path, dataset: Path, tmp_path: Path
) -> None:
    plain, packed = (
        make_trainer(text, dataset, tmp_path, batch_size=32, pack_tokens=n) for n in (0, 64)
    )
    losses = []
    for trainer in (plain, packed):
        (batch,) = trainer.get_train_dataloader()
        assert ("position_ids" in batch) == (trainer is packed)
        with torch.no_grad():
            losses.append(trainer.compute_loss(trainer.model, batch).item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    rows = read_split(dataset / "held_out.arrow")
    found = [
        read_loss(trainer.model, rows, collate=trainer.data_collator, batch_size=3)
        for trainer in (plain, packed)
    ]
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_packs_learn(text: Path, dataset: Path, tmp_path: Path) -> None:
    train(text, dataset, tmp_path / "out", pack_tokens=64, batch_size=2, max_steps=6)
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["loss_after"] < metrics["loss_before"]


def test_the_same_bytes_in_another_process(text: Path, dataset: Path, tmp_path: Path) -> None:
    train(text, dataset, tmp_path / "here")
    (tmp_path / "elsewhere").mkdir()
    for name, source in (("t", text), ("d", dataset)):
        (tmp_path / name).symlink_to(source)
    job = {
        "stage": "sft.adapter",
        "inputs": {"text": str(tmp_path / "t"), "dataset": str(tmp_path / "d")},
        "options": dataclasses.asdict(OPTIONS),
        "out": str(tmp_path / "elsewhere"),
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    subprocess.run(
        [sys.executable, "-m", "pipeline.job", str(tmp_path / "job.json")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(ROOT), "TZ": "Asia/Tokyo"},
        check=True,
        capture_output=True,
    )
    names = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert names == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.sha256",
        "metrics.json",
    ]
    for name in names:
        ours, theirs = ((tmp_path / d / name).read_bytes() for d in ("here", "elsewhere"))
        assert ours == theirs, name
        assert str(tmp_path).encode() not in ours


def test_what_is_written(text: Path, dataset: Path, tmp_path: Path) -> None:
    tensors = train(text, dataset, tmp_path / "out", max_steps=0)
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["target_modules"] == sorted(OPTIONS.target_modules)
    assert config["base_model_name_or_path"] == "text"
    assert (config["r"], config["lora_alpha"]) == (4, 8.0)
    assert len(tensors) == 2 * 2 * len(OPTIONS.target_modules)
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["steps"] == 4  # one pass: 32 rows, batches of 4, two to a step
    assert metrics["loss_after"] < metrics["loss_before"]
    assert metrics["trainable_parameters"] == sum(t.numel() for t in tensors.values())
    assert [line["step"] for line in metrics["log"]] == [1, 2, 3, 4]
    loaded = model.read_adapted(text, tmp_path / "out")
    found = loaded.get_submodule("base_model.model.model.layers.1.mlp.up_proj.lora_B.default")
    name = "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"
    assert torch.equal(found.weight, tensors[name])


def test_an_adapter_knows_its_base(text: Path, dataset: Path, tmp_path: Path) -> None:
    tensors = train(text, dataset, tmp_path / "out")
    opened = open_weights(text, tmp_path / "out")
    assert opened.adapter is not None
    assert len(opened.adapter.pairs) == len(tensors) // 2
    write_text_checkpoint(tmp_path / "other", seed=1)
    with pytest.raises(StageError, match="cannot be merged") as caught:
        open_weights(tmp_path / "other", tmp_path / "out")
    assert caught.value.on == "base.sha256, digest of the base"
    (tmp_path / "out" / "base.sha256").unlink()
    assert open_weights(tmp_path / "other", tmp_path / "out").adapter is not None


def test_four_bits_learn(text: Path, dataset: Path, tmp_path: Path) -> None:
    tensors = train(text, dataset, tmp_path / "out", method="qlora")
    assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert metrics["loss_after"] < metrics["loss_before"]


def test_four_bit_layers_pass_gradients_after_an_evaluation(text: Path) -> None:
    adapted = adapter.make_adapted(model.read_base(text, "qlora"), OPTIONS)
    ids = torch.tensor([[1, 3, 50, 60, 4, 70, 2]])
    first = "base_model.model.model.layers.0.self_attn.v_proj.lora_B.default.weight"

    def read_gradient() -> torch.Tensor:
        adapted.zero_grad()
        adapted.train()
        adapted(input_ids=ids, labels=ids).loss.backward()
        gradient = adapted.get_parameter(first).grad
        assert gradient is not None
        return gradient.clone()

    before = read_gradient()
    with torch.no_grad():
        adapted.eval()
        adapted(input_ids=ids)
    assert torch.equal(read_gradient(), before)
    assert before.any()


@pytest.mark.parametrize(
    ("rate", "said"),
    [(1e38, "training diverges"), (1e30, "no gradient reaches the adapter")],
)
def test_a_run_that_breaks_is_named_by_step(
    text: Path, dataset: Path, tmp_path: Path, rate: float, said: str
) -> None:
    with pytest.raises(StageError, match=said) as caught:
        train(text, dataset, tmp_path / "out", learning_rate=rate)
    # The rate is 0 in step 1 and wrecks the weights in step 2.
    assert caught.value.on.startswith("step 3: ")
    assert not list((tmp_path / "out").iterdir())


def test_an_adapter_that_has_not_moved(text: Path, dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="has learnt nothing"):
        train(text, dataset, tmp_path / "out", learning_rate=0.0, max_steps=1)
    assert not list((tmp_path / "out").iterdir())


def test_no_supervised_token(tmp_path: Path) -> None:
    arrow = write_arrow(tmp_path / "train.arrow", [HandRow(row_id="r", ids=[1, 2], mask=[0, 0])])
    with pytest.raises(StageError, match="not one token is supervised"):
        read_split(arrow)
