"""The loss weighs tokens, however batched; no tensor is as large as all logits or scores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from torch.utils._python_dispatch import TorchDispatchMode

from pipeline.sft.arrow import read_split
from pipeline.sft.loss import judge
from tests.sft.training import start_trainer
from tests.tiny_text import write_text_checkpoint

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore::FutureWarning:transformers")]

_VOCABULARY = 131_072


class Largest(TorchDispatchMode):  # type: ignore[misc, unused-ignore]
    """The number of elements of the largest tensor that any operation gives back."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else (found,):
            if isinstance(each, torch.Tensor):
                self.elements = max(self.elements, each.numel())
        return found


def measure(work: Callable[[], object]) -> int:
    with Largest() as largest:
        work()
    return int(largest.elements)


def make_row(tokens: int) -> dict[str, torch.Tensor]:
    ids = torch.arange(tokens)[None] % 200 + 20
    return {"input_ids": ids, "labels": ids.clone(), "attention_mask": torch.ones_like(ids)}


def read_steps(
    text: Path, dataset: Path, scratch: Path, **changes: Any
) -> list[tuple[float, float]]:
    trainer = start_trainer(text, dataset, scratch, max_steps=4, **changes)
    trainer.train()
    logs = [each for each in trainer.state.log_history if "grad_norm" in each]
    return [(each["loss"], each["grad_norm"]) for each in logs]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_one_batch_of_eight_is_eight_of_one(
    method: str, text: Path, dataset: Path, tmp_path: Path
) -> None:
    rows = read_split(dataset / "train.arrow")
    supervised = {sum(label != -100 for label in row["labels"]) for row in rows}
    assert len(supervised) > 3, "rows of one length would hide a mean over rows"
    rate = {"lora": 1e-2, "full": 1e-3}[method]
    whole, single, some = (
        read_steps(
            *(text, dataset, tmp_path / f"{batch}"),
            method=method,
            learning_rate=rate,
            batch_size=batch,
            gradient_accumulation=8 // batch,
        )
        for batch in (8, 1, 2)
    )
    assert len(whole) == 4
    for step, others in enumerate(zip(whole, single, some, strict=True)):
        for found in others[1:]:
            assert found == pytest.approx(others[0], rel=1e-5), f"step {step + 1}"


def test_a_step_in_tiles_has_the_loss_and_gradients_of_whole_logits(
    text: Path, dataset: Path, tmp_path: Path
) -> None:
    trainer = start_trainer(text, dataset, tmp_path, batch_size=8)
    model, batch = trainer.model, next(iter(trainer.get_train_dataloader()))

    def read_gradients(loss: torch.Tensor) -> dict[str, torch.Tensor]:
        model.zero_grad()
        loss.backward()
        trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
        return {name: each.grad.clone() for name, each in trained.items()}

    labels = batch["labels"][:, 1:]
    taught = int((labels != -100).sum())
    # Of twice the tokens in the step: another micro-step has as many.
    tiled = 2 * trainer.compute_loss(model, dict(batch), num_items_in_batch=2 * taught)
    logits = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    whole = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    assert tiled.item() == pytest.approx(whole.item(), rel=1e-6)
    ours, theirs = read_gradients(tiled), read_gradients(whole)
    assert any(each.any() for each in theirs.values())
    for name, gradient in theirs.items():
        assert torch.allclose(ours[name], gradient, rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize("modules_to_save", [(), ("lm_head",)])
def test_logits_of_a_large_vocabulary_are_never_whole(
    modules_to_save: tuple[str, ...], dataset: Path, tmp_path: Path
) -> None:
    tokens = 320
    write_text_checkpoint(tmp_path, vocabulary=_VOCABULARY)
    trainer = start_trainer(tmp_path, dataset, tmp_path / "s", modules_to_save=modules_to_save)
    row = make_row(tokens)

    def take_step() -> None:
        trainer.compute_loss(trainer.model, dict(row)).backward()

    def read_logits() -> None:
        trainer.model(input_ids=row["input_ids"])

    def look_at_held_out() -> None:
        rows = Dataset.from_list([{"row": 0}])
        judge(trainer.model, rows, collate=lambda _: dict(row), batch_size=1)

    # What would be too much is seen, and then it is not there.
    assert measure(read_logits) >= tokens * _VOCABULARY
    held = 0.3 * tokens * _VOCABULARY
    assert held > 64 * _VOCABULARY, "the weights of the head are no logits"
    assert measure(take_step) < held
    assert measure(look_at_held_out) < held


def test_attention_never_holds_a_score_for_each_pair_of_tokens(
    text: Path, dataset: Path, tmp_path: Path
) -> None:
    tokens = 2048
    trainer = start_trainer(text, dataset, tmp_path)
    layers = trainer.model.get_base_model().model

    def take_step() -> None:
        layers(make_row(tokens)["input_ids"], use_cache=False).last_hidden_state.sum().backward()

    assert measure(take_step) < tokens * tokens
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert measure(take_step) >= 4 * tokens * tokens  # four heads


def test_a_checkpointed_step_of_one_row_keeps_one_activation_per_layer(
    text: Path, dataset: Path, tmp_path: Path
) -> None:
    """What the backward pass is kept for: the layers' inputs, and not what lies within them."""
    kept = {}
    for checkpointing in (False, True):
        trainer = start_trainer(
            text, dataset, tmp_path / str(checkpointing), gradient_checkpointing=checkpointing
        )
        trainer.model.train()
        if checkpointing:
            trainer.model.gradient_checkpointing_enable()
        sizes: list[int] = []

        def keep(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            trainer.compute_loss(trainer.model, make_row(512))
        kept[checkpointing] = sum(sizes)
    assert kept[True] < 0.5 * kept[False]
