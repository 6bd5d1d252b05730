"""`python -m bench.conversion_steps STEP ...`: one step of a conversion, as a process of its own.

`stream` is Tristill's stage; `text` and `merged` are its stages of the longer way; `convert` runs
llama.cpp's converter; `imports` only imports what `stream` does. Each step imports what it needs
and no more: none pays for another.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

NAME = "bench"
_THREADS = 2


def stream(base: str, adapter: str, out: str, file_type: str, workers: str) -> None:
    """Write base and adapter ("-" for none) as one GGUF, in one pass; then the gate, as always."""
    from pipeline.checkpoint import gguf

    # As on a host of so many cores.
    os.sched_getaffinity = lambda _: set(range(int(workers)))
    inputs = {"base": Path(base)} | ({"adapter": Path(adapter)} if adapter != "-" else {})
    options = gguf.Options(type=file_type, model_name=NAME, tensor_types=(), chat_template="")
    gguf.run(inputs, options, Path(out))


def make_text(base: str, out: str) -> None:
    """Write the text-only checkpoint in BF16."""
    from pipeline.checkpoint import text

    text.run({"base": Path(base)}, text.Options(chat_template="", cpu_threads=_THREADS), Path(out))


def make_merged(checkpoint: str, adapter: str, out: str) -> None:
    """Write the checkpoint with the adapter merged in."""
    from pipeline.checkpoint import merged

    inputs = {"text": Path(checkpoint), "adapter": Path(adapter)}
    merged.run(inputs, merged.Options(cpu_threads=_THREADS), Path(out))


def convert(checkpoint: str, path: str) -> None:
    """Write a checkpoint as a GGUF in BF16, by llama.cpp's converter."""
    from pipeline.checkpoint.llama_source import import_conversion, import_gguf
    from pipeline.checkpoint.pre_tokenizer import known_splits
    from pipeline.checkpoint.text_config import read_config

    source = Path(checkpoint)
    (architecture,) = read_config(source / "config.json")["architectures"]
    model_class = import_conversion().get_model_class(architecture)
    file_type = import_gguf().LlamaFileType.MOSTLY_BF16
    with known_splits(source):
        model_class(source, file_type, Path(path), model_name=NAME).write()


def show_imports() -> None:
    """Import what `stream` does."""
    import pipeline.checkpoint.gguf  # noqa: F401


STEPS: dict[str, Callable[..., None]] = {
    "stream": stream,
    "text": make_text,
    "merged": make_merged,
    "convert": convert,
    "imports": show_imports,
}

if __name__ == "__main__":
    STEPS[sys.argv[1]](*sys.argv[2:])
