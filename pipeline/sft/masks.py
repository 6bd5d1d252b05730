"""`python -m pipeline.sft.masks DATASET_DIR TEXT_DIR ROW`: what one row teaches, token by token.

Reads the very train.arrow that training reads. ROW is a row's id, or its number from 0.
Supervised tokens are green on a terminal and stand in brackets elsewhere.
"""

import sys
from pathlib import Path

import pyarrow as pa
from transformers import PreTrainedTokenizerFast

from pipeline.errors import StageError, TristillError
from pipeline.sft.chat import Rendered, decode, read_tokenizer

PLAIN = ("⟦", "⟧")
COLOUR = ("\x1b[32m", "\x1b[0m")


def read_row(arrow: Path, row: str) -> tuple[str, Rendered]:
    """Return id, token ids and mask of one row. Raises StageError when there is no such row."""
    with pa.memory_map(str(arrow)) as source:
        table = pa.ipc.open_stream(source).read_all()
        ids = table.column("row_id").to_pylist()
        if row not in ids and not (row.isdecimal() and int(row) < len(ids)):
            raise StageError(
                "there is no such row",
                on=f"row {row} of {arrow}",
                why=f"it holds {len(ids)} rows, ids {ids[0]} to {ids[-1]}",
                then="give one of those ids, or a number from 0",
            )
        index = ids.index(row) if row in ids else int(row)
        values = table.slice(index, 1).to_pylist()[0]
    mask = values["completion_mask"]
    return ids[index], Rendered(input_ids=values["input_ids"], completion_mask=mask)


def make_view(tokenizer: PreTrainedTokenizerFast, row: Rendered, marks: tuple[str, str]) -> str:
    """Return the row's tokens as text, each supervised one between the two marks."""
    before, after = marks
    parts = []
    for token_id, supervised in zip(row.input_ids, row.completion_mask, strict=True):
        token = decode(tokenizer, [token_id], bare=False)
        shown = token.replace("\n", "⏎")
        parts.append(f"{before}{shown}{after}" if supervised else shown)
        parts.append("\n" if "\n" in token else "")
    return "".join(parts)


def main(argv: list[str]) -> int:
    """Show one row on stdout; return the exit code."""
    if len(argv) != 3:
        sys.stderr.write("usage: python -m pipeline.sft.masks DATASET_DIR TEXT_DIR ROW\n")
        return 2
    try:
        row_id, row = read_row(Path(argv[0]) / "train.arrow", argv[2])
        view = make_view(
            read_tokenizer(Path(argv[1])), row, COLOUR if sys.stdout.isatty() else PLAIN
        )
    except TristillError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    total = len(row.input_ids)
    sys.stdout.write(f"row {row_id}: {total} tokens, {sum(row.completion_mask)} supervised\n")
    sys.stdout.write(view + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
