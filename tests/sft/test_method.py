"""Every method, start and optimizer: what is written is what was trained, and repeats."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from peft.tuners.lora import Linear4bit
from safetensors.torch import load_file
from transformers import MixtralConfig, MixtralForCausalLM

from pipeline.checkpoint.weights import open_weights
from pipeline.errors import StageError
from pipeline.sft.arrow import read_split
from pipeline.sft.loss import read_loss
from pipeline.sft.method import make_subject
from pipeline.sft.model import read_adapted, read_base
from pipeline.sft.options import Options
from tests.sft.training import OPTIONS, start_trainer, train
from tests.tiny_text import write_text_checkpoint, write_tokenizer

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore::FutureWarning:transformers")]

_IDS = torch.tensor([[1, 3, 50, 60, 4, 70, 80, 90, 2]])


def change(**values: Any) -> Options:
    return Options(**{**vars(OPTIONS), **values})


def read_summary(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "metrics.json").read_text()))


def test_full_writes_the_checkpoint_that_it_has_trained(
    text: Path, dataset: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    tensors = train(text, dataset, out, method="full", learning_rate=1e-3, max_steps=6)
    before = load_file(text / "model.safetensors")
    assert {name: each.shape for name, each in tensors.items()} == {
        name: each.shape for name, each in before.items()
    }
    assert all(not torch.equal(tensors[name], before[name]) for name in before if "proj" in name)
    summary = read_summary(out)
    assert summary["trainable_parameters"] == sum(each.numel() for each in before.values())
    assert summary["loss_after"] < summary["loss_before"]
    # What the converter and the evaluation read: a checkpoint like any other, with its tokenizer.
    assert open_weights(out).adapter is None
    again = start_trainer(out, dataset, tmp_path)
    rows = read_split(dataset / "held_out.arrow")
    loss = read_loss(again.model, rows, collate=again.data_collator, batch_size=4)
    assert loss == pytest.approx(summary["loss_after"], rel=1e-2)  # it was rounded to BF16


def test_full_takes_tied_embeddings(dataset: Path, tmp_path: Path) -> None:
    write_text_checkpoint(tmp_path / "tied", tied=True)
    tensors = train(tmp_path / "tied", dataset, tmp_path / "out", method="full", learning_rate=1e-3)
    assert set(tensors) == set(load_file(tmp_path / "tied/model.safetensors"))
    assert "lm_head.weight" not in tensors


def test_full_refuses_at_once_a_model_that_it_could_not_write(tmp_path: Path) -> None:
    """transformers joins the experts of a layer to one parameter."""
    config = MixtralConfig(
        vocab_size=268,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
    )
    MixtralForCausalLM(config).bfloat16().save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    with pytest.raises(StageError, match="cannot be trained whole") as caught:
        make_subject(tmp_path, change(method="full"))
    assert "experts" in caught.value.on


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("init", ["zero", "gaussian", "pissa"])
def test_the_written_adapter_is_the_trained_one_on_the_plain_base(
    init: str, rslora: bool, text: Path, dataset: Path, tmp_path: Path
) -> None:
    changes = {"init": init, "rslora": rslora, "learning_rate": 3e-3}
    trainer = start_trainer(text, dataset, tmp_path / "scratch", **changes)
    with torch.no_grad():
        base = read_base(text, "lora")(_IDS).logits
        # Whatever it starts from, it starts as the base itself.
        assert torch.allclose(trainer.model(_IDS).logits, base, atol=2e-4)
    subject = trainer.subject
    trainer.train()
    subject.check_changed(subject.gather())
    (tmp_path / "out").mkdir()
    subject.write(tmp_path / "out", subject.gather())
    config = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert config["r"] == (8 if init == "pissa" else 4)
    with torch.no_grad():
        trained = trainer.model.eval()(_IDS).logits
        loaded = read_adapted(text, tmp_path / "out")(_IDS).logits
    assert torch.allclose(trained, loaded, atol=1e-3)
    assert not torch.allclose(trained, base, atol=1e-2)
    assert open_weights(text, tmp_path / "out").adapter is not None


def test_the_start_beside_a_quantized_base_is_not_rounded(
    text: Path, dataset: Path, tmp_path: Path
) -> None:
    """TRL casts it to BF16: what PiSSA and LoftQ are written as would then not be what is trained,
    and AdamW's small steps would vanish."""
    trainer = start_trainer(text, dataset, tmp_path, method="qlora", init="loftq")
    factors = [each for name, each in trainer.model.named_parameters() if "lora_A" in name]
    assert all(not torch.equal(each, each.bfloat16().float()) for each in factors)


def test_loftq_starts_nearer_to_the_base_and_writes_what_it_learnt(
    text: Path, dataset: Path, tmp_path: Path
) -> None:
    options = change(method="qlora", init="loftq", rank=8)
    subject = make_subject(text, options)
    stored = load_file(text / "model.safetensors")
    for name, module in subject.model.named_modules():
        if isinstance(module, Linear4bit):
            weight = module.get_base_layer().weight
            held = dequantize_4bit(weight.data, weight.quant_state).float()
            wanted = stored[f"{name.removeprefix('base_model.model.')}.weight"].float()
            added = module.get_delta_weight("default").float()
            assert (held + added - wanted).norm() < 0.8 * (held - wanted).norm(), name
    with pytest.raises(StageError, match="has learnt nothing"):
        subject.check_changed(subject.gather())
    (tmp_path / "start").mkdir()
    subject.write(tmp_path / "start", subject.gather())
    adapter = open_weights(text, tmp_path / "start").adapter
    assert adapter is not None
    for name, rows in stored.items():
        # Nothing was learnt yet: merged in, it changes nothing but for rounding.
        assert torch.allclose(adapter.apply(name, rows, 0).float(), rows.float(), atol=1e-3)
    train(text, dataset, tmp_path / "out", method="qlora", init="loftq", rank=8)
    summary = read_summary(tmp_path / "out")
    assert summary["loss_after"] < summary["loss_before"]


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_embeddings_are_trained_whole_at_a_rate_of_their_own(
    method: str, text: Path, dataset: Path, tmp_path: Path
) -> None:
    changes = {
        "method": method,
        "modules_to_save": ("embed_tokens", "lm_head"),
        "embedding_learning_rate": 1e-3,
    }
    trainer = start_trainer(text, dataset, tmp_path / "scratch", **changes)
    trainer.create_optimizer()
    rates = {
        name: group["lr"]
        for group in trainer.optimizer.param_groups
        for name, parameter in trainer.model.named_parameters()
        if any(parameter is each for each in group["params"])
    }
    assert {name for name, rate in rates.items() if rate == 1e-3} == {
        "base_model.model.model.embed_tokens.modules_to_save.default.weight",
        "base_model.model.lm_head.modules_to_save.default.weight",
    }
    assert {rate for name, rate in rates.items() if "lora_" in name} == {1e-2}
    tensors = train(text, dataset, tmp_path / "out", **changes)
    before = load_file(text / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        saved = tensors[f"base_model.model.{name}"]
        assert saved.dtype == torch.bfloat16
        assert not torch.equal(saved, before[name])
    weights = open_weights(text, tmp_path / "out")
    merged = weights.read_rows("lm_head.weight", 0, 32)
    assert torch.equal(merged, tensors["base_model.model.lm_head.weight"][:32])
    summary = read_summary(tmp_path / "out")
    assert summary["loss_after"] < summary["loss_before"]


def test_tied_embeddings_are_not_trained_beside_an_adapter(tmp_path: Path) -> None:
    write_text_checkpoint(tmp_path, tied=True)
    with pytest.raises(StageError, match="embeddings cannot be trained") as caught:
        make_subject(tmp_path, change(modules_to_save=("lm_head",)))
    assert "modules_to_save" in caught.value.on


def test_adamw_in_8_bits_keeps_its_state_in_bytes(
    text: Path, dataset: Path, tmp_path: Path
) -> None:
    changes = {"optimizer": "adamw_8bit", "rank": 64, "weight_decay": 0.01}
    trainer = start_trainer(text, dataset, tmp_path / "scratch", **changes)
    trainer.train()
    states = [each["state1"].dtype for each in trainer.optimizer.state.values()]
    assert torch.uint8 in states
    first, second = (
        train(text, dataset, tmp_path / name, **changes) for name in ("first", "second")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("changes", [{"init": "pissa"}, {"method": "qlora", "init": "loftq"}])
def test_a_start_by_singular_values_repeats(
    changes: dict[str, Any], text: Path, dataset: Path, tmp_path: Path
) -> None:
    first, second = (
        train(text, dataset, tmp_path / name, max_steps=2, **changes)
        for name in ("first", "second")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_noise_on_embeddings_is_of_training_alone_and_repeats(
    text: Path, dataset: Path, tmp_path: Path
) -> None:
    plain = train(text, dataset, tmp_path / "plain")
    noisy, again = (
        train(text, dataset, tmp_path / name, neftune_alpha=5.0) for name in ("noisy", "again")
    )
    assert all(torch.equal(noisy[name], again[name]) for name in noisy)
    assert not all(torch.equal(noisy[name], plain[name]) for name in noisy)
    before = {read_summary(tmp_path / name)["loss_before"] for name in ("plain", "noisy")}
    assert len(before) == 1


@pytest.mark.parametrize(
    "changes",
    [{"dropout": 0.1}, {"method": "full"}, {"modules_to_save": ("embed_tokens",)}],
)
def test_checkpointed_activations_give_the_same_bytes(
    changes: dict[str, Any], text: Path, dataset: Path, tmp_path: Path
) -> None:
    changes |= {"max_steps": 2, "learning_rate": 1e-3}
    kept, computed_again = (
        train(text, dataset, tmp_path / str(each), gradient_checkpointing=each, **changes)
        for each in (False, True)
    )
    assert all(torch.equal(kept[name], computed_again[name]) for name in kept)
