"""The demonstration's base model: trained from scratch on conversations without reasoning.

It learns the pieces (columns, reading) and answers problems directly, which it never learns to do
right. `measure_pieces` tells whether the pieces are settled: distillation only puts them together,
so a base that has not settled them would make the demonstration fail later and less clearly.

Legend: B rows, T tokens of the longest row.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import Ministral3Config, Ministral3ForCausalLM

from pipeline.demo.problems import CARRY_TOKEN, COLUMN_TOKENS, Problem, Turn, make_drill
from pipeline.log import say

BATCH_SIZE = 8
LEARNING_RATE = 1e-3
BETAS = (0.9, 0.95)
WARMUP_STEPS = 20
FLOOR = 0.1
MAX_GRADIENT_NORM = 1.0
# Wider than a large model's 0.02: a narrow model's look-ups form late or never from there.
INITIAL_STD = 0.06
PAD_ID = 11
IGNORED = -100
_SAY_EVERY = 100

Conversation = tuple[Turn, ...]


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """Share of held-out drills of which every token that can be known is the likeliest."""

    columns: float
    read: float


def make_model(text_config: dict[str, Any], seed: int) -> Ministral3ForCausalLM:
    """Return a new float32 text model with random weights.

    The output starts as a copy of the embeddings: most of the task is copying digits.
    """
    settings = text_config | {"initializer_range": INITIAL_STD, "tie_word_embeddings": False}
    del settings["model_type"]
    torch.manual_seed(seed)
    model = Ministral3ForCausalLM(Ministral3Config(**settings))
    with torch.no_grad():
        model.lm_head.weight.copy_(model.model.embed_tokens.weight)
    return model


def train(
    model: Ministral3ForCausalLM,
    tokenizer: Tokenizer,
    conversations: Iterator[Conversation],
    steps: int,
) -> None:
    """Train the model in place with AdamW on the conversations' answers."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=0.0, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, make_schedule(steps))
    model.train()
    for step in range(1, steps + 1):
        loss = compute_loss(model, *make_batch(tokenizer, list(islice(conversations, BATCH_SIZE))))
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % _SAY_EVERY == 0 or step == steps:
            say(f"  step {step} of {steps}: loss {loss.item():.3f}")
    model.train(False)


def make_schedule(steps: int) -> Callable[[int], float]:
    """Return the learning rate's factor by step: linear warm-up, then cosine down to FLOOR."""

    def scale(step: int) -> float:
        if step < WARMUP_STEPS:
            return (step + 1) / WARMUP_STEPS
        progress = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
        return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2

    return scale


def make_batch(
    tokenizer: Tokenizer, conversations: Sequence[Conversation]
) -> tuple[Tensor, Tensor]:
    """Return (input_ids_BT, labels_BT), padded on the right.

    Answers and their EOS are labelled, but for random carries: there is nothing to learn there.
    """
    rows = [_make_row(tokenizer, conversation) for conversation in conversations]
    length = max(len(ids) for ids, _ in rows)
    input_ids_BT = torch.full((len(rows), length), PAD_ID)
    labels_BT = torch.full((len(rows), length), IGNORED)
    for index, (ids, labels) in enumerate(rows):
        input_ids_BT[index, : len(ids)] = torch.tensor(ids)
        labels_BT[index, : len(ids)] = torch.tensor(labels)
    return input_ids_BT, labels_BT


def _make_row(tokenizer: Tokenizer, conversation: Conversation) -> tuple[list[int], list[int]]:
    """Return ids and labels of a conversation in the chat template's form."""
    ids, labels = _tokenize(tokenizer, "<s>"), [IGNORED]
    for turn in conversation:
        question = _tokenize(tokenizer, f"[INST]{turn.question}[/INST]")
        answer = _tokenize(tokenizer, f"{turn.answer}</s>")
        ids += question + answer
        labels += [IGNORED] * len(question)
        labels += [
            IGNORED if turn.has_random_carries and place % COLUMN_TOKENS == CARRY_TOKEN else token
            for place, token in enumerate(answer)
        ]
    return ids, labels


def _tokenize(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def compute_loss(model: Ministral3ForCausalLM, input_ids_BT: Tensor, labels_BT: Tensor) -> Tensor:
    """Return the mean cross entropy of the labelled tokens.

    No attention mask: padding is on the right, where a causal model's rows never look.
    """
    hidden = model.model(input_ids=input_ids_BT, use_cache=False).last_hidden_state[:, :-1]
    targets = labels_BT[:, 1:]
    labelled = targets != IGNORED
    return nn.functional.cross_entropy(model.lm_head(hidden[labelled]), targets[labelled])


@torch.no_grad()
def measure_pieces(
    model: Ministral3ForCausalLM, tokenizer: Tokenizer, problems: Sequence[Problem]
) -> Pieces:
    """Return how well the model knows the pieces of problems that it has never seen."""
    random = Random("pieces")
    drills = [make_drill(problem, random) for problem in problems]
    input_ids_BT, labels_BT = make_batch(tokenizer, drills)
    likeliest_BT = model(input_ids=input_ids_BT, use_cache=False).logits[:, :-1].argmax(-1)
    targets_BT = labels_BT[:, 1:]
    right_BT = (likeliest_BT == targets_BT) | (targets_BT == IGNORED)
    # Every drill has the same lengths; the last turn is the reading.
    (read,) = {len(_tokenize(tokenizer, f"{drill[-1].answer}</s>")) for drill in drills}
    return Pieces(
        columns=float(right_BT[:, :-read].all(1).float().mean()),
        read=float(right_BT[:, -read:].all(1).float().mean()),
    )
