"""Labels equal masks by exact ids; the same bytes twice; runs that learn nothing fail."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from pipeline.checkpoint.weights import open_weights
from pipeline.errors import StageError
from pipeline.sft import model
from pipeline.sft.arrow import read_split
from pipeline.sft.loss import read_loss
from pipeline.sft.method import make_adapted
from tests.sft.training import OPTIONS, read_files, start_run, start_trainer, train
from tests.tiny_text import write_text_checkpoint

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore::FutureWarning:transformers")]


def test_labels_of_collated_batches_are_the_mask(text: Path, dataset: Path, tmp_path: Path) -> None:
    with pa.memory_map(str(dataset / "train.arrow")) as source:
        rows = pa.ipc.open_stream(source).read_all().to_pylist()
    expected = {tuple(r["input_ids"]): r["completion_mask"] for r in rows}
    seen = 0
    for batch in start_trainer(text, dataset, tmp_path).get_train_dataloader():
        triples = (batch[name].tolist() for name in ("input_ids", "labels", "attention_mask"))
        for ids, labels, attention in zip(*triples, strict=True):
            length = sum(attention)
            mask = expected[tuple(ids[:length])]
            wanted = [i if m else -100 for i, m in zip(ids, mask, strict=False)]
            assert labels == wanted + [-100] * (len(ids) - length)
            seen += 1
    assert seen == len(rows)


def test_the_loss_is_weighted_by_token(text: Path, dataset: Path, tmp_path: Path) -> None:
    trainer = start_trainer(text, dataset, tmp_path)
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
        start_trainer(text, dataset, tmp_path, batch_size=32, pack_tokens=n) for n in (0, 64)
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
    train(text, dataset, tmp_path / "here", checkpoint_steps=2)
    for name, source in (("t", text), ("d", dataset)):
        (tmp_path / name).symlink_to(source)
    varied = {"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo"}
    elsewhere = tmp_path / "elsewhere"
    running = start_run(tmp_path / "t", tmp_path / "d", elsewhere, varied, checkpoint_steps=2)
    assert running.communicate()[1]
    assert running.returncode == 0
    ours, theirs = read_files(tmp_path / "here-run"), read_files(elsewhere)
    assert sorted(ours) == [
        "checkpoints.json",
        "hardware.json",
        "metrics.json",
        "metrics.jsonl",
        "sample.json",
        *(
            f"step-{step:06d}/{name}"
            for step in (2, 3)
            for name in ("adapter_config.json", "adapter_model.safetensors", "base.sha256")
        ),
    ]
    assert ours == theirs
    assert not any(str(tmp_path).encode() in content for content in ours.values())


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
    adapted = make_adapted(model.read_base(text, "qlora"), OPTIONS)
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
