"""The checkpoints of a training run -> the one that the recipe chooses. Nothing is trained.

In: `training`. Out: the files of that checkpoint as they are (an adapter with the digest of its
base, or, of method `full`, a text-only checkpoint), and metrics.json: its loss on the held-out
rows, that before training, its step, and how many parameters are trained. Standard library alone.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import StageError
from pipeline.log import say
from pipeline.recipe.checkpoint import BEST, EPOCH, LAST, STEP, parse_checkpoint
from pipeline.sft.checkpoint_list import Evaluation, find_best, name_checkpoint, read_list


@dataclass(frozen=True, kw_only=True)
class Options:
    checkpoint: str
    best_by: str


def choose(evaluations: Sequence[Evaluation], checkpoint: str, best_by: str) -> Evaluation:
    """Return the checkpoint that is meant: last, best, step:N or epoch:N.

    Raises StageError when there is none, naming those that there are.
    """
    kind, number = parse_checkpoint(checkpoint)
    if kind == LAST:
        return evaluations[-1]
    if kind == BEST:
        return find_best(evaluations, best_by)
    assert kind in (STEP, EPOCH), kind
    for each in evaluations:
        if number == (each.step if kind == STEP else each.epoch):
            return each
    steps = ", ".join(str(each.step) for each in evaluations)
    epochs = ", ".join(str(int(each.epoch)) for each in evaluations if each.epoch % 1 == 0)
    raise StageError(
        "there is no such checkpoint",
        on=f'train.checkpoint = "{checkpoint}"',
        why=f"there is one after each of the steps {steps}; ends of epochs: {epochs or 'none'}",
        then="name one of them in the recipe; nothing is trained again for that",
    )


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Write the chosen checkpoint. Raises StageError when there is no such one."""
    training = inputs["training"]
    chosen = choose(read_list(training), options.checkpoint, options.best_by)
    say(f"  step {chosen.step}, epoch {chosen.epoch:.2f}: held-out loss {chosen.loss:.4f}")
    shutil.copytree(training / name_checkpoint(chosen.step), out, dirs_exist_ok=True)
    out.chmod(0o755)  # copied with everything else, and its own was read-only
    metrics = json.loads((training / "metrics.json").read_text(encoding="utf-8"))
    metrics |= {"loss_after": chosen.loss, "steps": chosen.step}
    text = json.dumps(metrics, indent=2, sort_keys=True) + "\n"
    (out / "metrics.json").write_text(text, encoding="utf-8")
