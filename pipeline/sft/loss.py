"""The token-weighted loss and accuracy over rows: the numbers that tell whether a model learnt.

Summed over supervised tokens and divided once at the end, so that batch size and padding cannot
move them. The logits of a vocabulary are never in memory at once: the head that the trainer has put
on the model (TRL's `add_fused_lm_head`) goes through it in tiles.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset

Collate = Callable[[list[dict[str, Any]]], Mapping[str, torch.Tensor]]


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """Means per supervised token: negative log-likelihood in nats, and how often the most likely
    token was the right one."""

    loss: float
    accuracy: float
    tokens: int


def judge(model: torch.nn.Module, rows: Dataset, *, collate: Collate, batch_size: int) -> Judgement:
    """Return how well a model that a trainer has taken knows the rows. Draws nothing at random."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    total, right, tokens = 0.0, 0, 0
    for start in range(0, len(rows), batch_size):
        part = [rows[i] for i in range(start, min(start + batch_size, len(rows)))]
        batch = {name: tensor.to(device) for name, tensor in collate(part).items()}
        with torch.no_grad():
            found = model(**batch, use_cache=False, fused_lm_head=True)
        total -= float(found.log_probs.sum())
        right += int(found.is_top1.sum())
        tokens += int(found.label_mask.sum())
    model.train(was_training)
    return Judgement(loss=total / tokens, accuracy=right / tokens, tokens=tokens)


def read_loss(model: torch.nn.Module, rows: Dataset, *, collate: Collate, batch_size: int) -> float:
    """Return the mean negative log-likelihood per supervised token, in nats."""
    return judge(model, rows, collate=collate, batch_size=batch_size).loss
