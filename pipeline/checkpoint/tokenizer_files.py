"""The tokenizer of a checkpoint: its files, copied as they are, and its own chat template.

`tekken.json` is left out: beside `tokenizer.json` it makes transformers choose another tokenizer
class, which refuses chats that end in an assistant's turn, and llama.cpp's converter stop. A README
is left out because the converter writes its front matter into the GGUF.
"""

import json
import shutil
from pathlib import Path

from pipeline.errors import StageError

CHAT_TEMPLATE = "chat_template.jinja"

FILES = (
    "added_tokens.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)


def copy_tokenizer(source: Path, out: Path) -> None:
    """Copy the tokenizer's files and generation_config.json.

    Raises StageError when the checkpoint has no tokenizer.
    """
    if not any((source / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise StageError(
            "the checkpoint has no tokenizer",
            on=source.name,
            why="neither tokenizer.json nor tokenizer.model is there",
            then="put the model's tokenizer.json beside its weights",
        )
    for name in FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def read_chat_template(checkpoint: Path) -> str:
    """Return the chat template: the file of that name, else the tokenizer config's own."""
    path = checkpoint / CHAT_TEMPLATE
    if path.is_file():
        return path.read_bytes().decode("utf-8")
    config = checkpoint / "tokenizer_config.json"
    template = (
        json.loads(config.read_text(encoding="utf-8")).get("chat_template")
        if config.is_file()
        else None
    )
    if not isinstance(template, str):
        raise StageError(
            "the checkpoint has no chat template",
            on=CHAT_TEMPLATE,
            why="it is a base model, or it has several templates and it is unclear which to train",
            then=f"name one by [dataset] template in the recipe, or write it to {CHAT_TEMPLATE}"
            " beside the weights",
        )
    return template
