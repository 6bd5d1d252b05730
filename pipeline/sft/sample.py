"""Rows as the trainer receives them -> sample.json: what carries loss, and what does not.

Taken behind everything that could get a label wrong (masks, packing, the collator), so that it
shows what is trained on and not what was meant. No random number is drawn for it.
"""

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast
from trl import SFTTrainer

from pipeline.data.encoding import read_control_ids
from pipeline.sft.arrow import IGNORED

SAMPLE = "sample.json"
ROWS = 3
TOKENS = 600  # of a row; the rest is counted and not shown

Piece = tuple[str, bool, bool]


def make_sample(trainer: SFTTrainer, tokenizer: PreTrainedTokenizerFast) -> list[dict[str, Any]]:
    """Return some rows, spread over the data: tokens, supervised tokens, and pieces of text, each
    with whether it is supervised and whether it is control tokens."""
    total = len(trainer.train_dataset)
    wanted = sorted({n * total // ROWS for n in range(ROWS)})
    return [_describe_row(trainer, row, tokenizer) for row in wanted]


def _describe_row(
    trainer: SFTTrainer, row: int, tokenizer: PreTrainedTokenizerFast
) -> dict[str, Any]:
    batch = trainer.data_collator([trainer.train_dataset[row]])
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    return {
        "row": row,
        "tokens": len(ids),
        "supervised": sum(label != IGNORED for label in labels),
        "pieces": list(_split(ids[:TOKENS], labels[:TOKENS], tokenizer)),
    }


def _split(
    ids: Sequence[int], labels: Sequence[int], tokenizer: PreTrainedTokenizerFast
) -> Iterator[Piece]:
    """Yield the text of each run of tokens of one kind."""
    controls = read_control_ids(tokenizer)
    kinds = [(label != IGNORED, each in controls) for each, label in zip(ids, labels, strict=True)]
    at = 0
    for kind, run in groupby(kinds):
        count = len(list(run))
        yield _decode(tokenizer, ids[at : at + count]), *kind
        at += count


def _decode(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int]) -> str:
    """Return the ids' text as it reads behind a letter: where a text begins, some tokenizers leave
    out a space."""
    letter = tokenizer.encode("a", add_special_tokens=False)
    before, whole = (
        tokenizer.decode(each, skip_special_tokens=False) for each in (letter, [*letter, *ids])
    )
    return str(whole).removeprefix(str(before))


def write_sample(trainer: SFTTrainer, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Write sample.json."""
    # ASCII alone: half of a surrogate pair, which a token may hold, has no form in UTF-8.
    text = json.dumps(make_sample(trainer, tokenizer)) + "\n"
    (out / SAMPLE).write_text(text, encoding="ascii")
