"""The token-weighted loss over rows: the number that tells whether the adapter learnt.

Summed over supervised tokens and divided once at the end, so that batch size and padding cannot
move it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from datasets import Dataset
from torch.nn import functional

from pipeline.sft.arrow import IGNORED

Collate = Callable[[list[dict[str, Any]]], Mapping[str, torch.Tensor]]


def read_loss(model: torch.nn.Module, rows: Dataset, *, collate: Collate, batch_size: int) -> float:
    """Return the mean negative log-likelihood per supervised token, in nats."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    total, count = 0.0, 0
    for start in range(0, len(rows), batch_size):
        part = [rows[i] for i in range(start, min(start + batch_size, len(rows)))]
        batch = {name: tensor.to(device) for name, tensor in collate(part).items()}
        labels = batch.pop("labels")[:, 1:]
        supervised = labels != IGNORED
        with torch.no_grad():
            logits = model(**batch, use_cache=False).logits[:, :-1]
        # Only the positions that are judged go to float32: a vocabulary is wide.
        logits = logits[supervised].float()
        total += float(functional.cross_entropy(logits, labels[supervised], reduction="sum"))
        count += int(supervised.sum())
    model.train(was_training)
    return total / count
