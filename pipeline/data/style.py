"""How rows become text: what a recipe may choose. Standard library alone."""

from dataclasses import dataclass

# What is taught: every answer of a conversation, or its last.
SUPERVISE = ("every", "last")

# How thinking is written: <think>..</think> in the text; as chunks, which Mistral's templates write
# as [THINK]..[/THINK]; or as the field reasoning_content, which others' read.
THINKING = ("text", "chunks", "field")

# What becomes of a row that is too long.
TOO_LONG = ("drop", "truncate")


@dataclass(frozen=True, kw_only=True)
class Style:
    """How rows become text, beside the checkpoint's chat template."""

    supervise: str = SUPERVISE[0]
    thinking: str = THINKING[0]
