"""Stage: nothing -> the demonstration's base checkpoint, made here and trained for a minute.

What goes out is a Mistral 3 vision-language checkpoint in FP8, file by file as Mistral publishes
Devstral Small 2. Its text model answers additions directly and is nearly always wrong; what it
knows are the pieces that reasoning puts together, measured on the weights as published.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.demo.pretrain import Pieces, make_model, measure_pieces, train
from pipeline.demo.problems import draw_conversations, make_held_out
from pipeline.demo.published import load_published, publish_text, write_checkpoint
from pipeline.demo.shape import make_config
from pipeline.demo.tokenizer import make_tokenizer
from pipeline.errors import StageError
from pipeline.log import say, step

ENOUGH = Pieces(columns=0.99, read=1.0)


@dataclass(frozen=True, kw_only=True)
class Options:
    seed: int
    digits: int
    hidden_size: int
    steps: int
    held_out: int
    cpu_threads: int


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Write the checkpoint. Raises StageError when the model did not learn the pieces."""
    torch.set_num_threads(options.cpu_threads)
    torch.use_deterministic_algorithms(True)
    config = make_config(options.hidden_size)
    tokenizer = make_tokenizer()
    held_out = make_held_out(options.seed, options.digits, options.held_out)
    model = make_model(config["text_config"], options.seed)
    with step(f"train the base model, {options.steps} steps"):
        conversations = draw_conversations(options.seed, options.digits, held_out)
        train(model, tokenizer, conversations, options.steps)
    tensors = publish_text(model)
    load_published(model, tensors)
    with step("measure the pieces"):
        require_pieces(measure_pieces(model, tokenizer, held_out), options)
    write_checkpoint(tensors, config, seed=options.seed, out=out)


def require_pieces(pieces: Pieces, options: Options) -> None:
    """Raise StageError unless the model knows the pieces well enough to be distilled into."""
    say(f"  held-out columns right: {pieces.columns:.1%}; columns read right: {pieces.read:.1%}")
    if pieces.columns >= ENOUGH.columns and pieces.read >= ENOUGH.read:
        return
    raise StageError(
        "the demonstration's base model did not learn the pieces",
        on=f"seed {options.seed}, {options.steps} steps",
        why=f"columns {pieces.columns:.1%} right, {ENOUGH.columns:.0%} are needed; "
        f"columns read {pieces.read:.1%} right, {ENOUGH.read:.0%} are needed",
        then="raise [demo] steps, or take another [demo] seed",
    )
