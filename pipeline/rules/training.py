"""Rules from the base and the rows to trained weights."""

import math

from pipeline.artifact.rule import Rule
from pipeline.estimate.estimate import Estimate
from pipeline.recipe.checkpoint import BEST, BEST_BY
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.train import Train
from pipeline.rules.fields import MASKING, TEMPLATE, THREADS, make_template, name_fields

TRAINING = "training"
# The stage whose steps `watch` shows.
TRAINING_STAGE = "sft.training"
# The image says the first, the choice of a checkpoint the second, and the rest changes no byte.
_NO_OPTIONS = ("accelerator", "checkpoint", "report_to", "hosts", "address")
# Two of the trainer's states are kept: a trained weight and two moments of AdamW, in 32 bits.
_STATE_BYTES = 2 * 3 * 4
_LIKELY_CHECKPOINTS = 10


def make_text(recipe: Recipe, estimate: Estimate) -> Rule:
    return Rule(
        name="text",
        image="convert",
        stage="checkpoint.text",
        options={"cpu_threads": recipe.train.cpu_threads, **make_template(recipe)},
        fields=THREADS | TEMPLATE,
        inputs={"base": "base"},
        estimated_bytes=estimate.text_bytes,
    )


def make_dataset(recipe: Recipe, estimate: Estimate) -> Rule:
    return Rule(
        name="dataset",
        image=recipe.train.image,
        stage="data.dataset",
        options={each: getattr(recipe.dataset, each) for each in MASKING},
        fields=name_fields("dataset", *MASKING),
        inputs={"text": "text", "rows": "rows"},
        estimated_bytes=estimate.dataset_bytes,
        # Its parts stay in the work area until it is sealed.
        scratch_bytes=estimate.dataset_bytes,
        resumes=True,
    )


def make_dataset_report(recipe: Recipe, estimate: Estimate) -> Rule:
    """The page that shows the data set: nothing is made from it, and it is built when asked for."""
    return Rule(
        name="dataset-report",
        image=recipe.train.image,
        stage="data.report",
        options={},
        inputs={"text": "text", "dataset": "dataset", "rows": "rows"},
        estimated_bytes=estimate.report_bytes,
    )


def make_training_rules(recipe: Recipe, estimate: Estimate) -> list[Rule]:
    """All checkpoints of one training run, and the one that is taken: another choice trains
    nothing."""
    training = {key: value for key, value in vars(recipe.train).items() if key not in _NO_OPTIONS}
    if not recipe.train.patience:
        training["best_by"] = BEST_BY[0]  # then it is of the choice alone
    is_adapter = recipe.train.result == "adapter"
    weights_bytes = estimate.adapter_bytes if is_adapter else estimate.text_bytes
    checkpoints_bytes = _model_checkpoints(recipe.train) * weights_bytes
    run = Rule(
        name=TRAINING,
        image=recipe.train.image,
        stage=TRAINING_STAGE,
        options=training,
        fields=name_fields("train", *training),
        inputs={"text": "text", "dataset": "dataset"},
        locations={
            "report_to": ",".join(recipe.train.report_to),
            "hosts": str(recipe.train.hosts),
            "host": "0",
            "address": recipe.train.address,
        },
        estimated_bytes=checkpoints_bytes,
        scratch_bytes=_STATE_BYTES * estimate.trainable_parameters,
        resumes=True,
    )
    is_judged = recipe.train.checkpoint == BEST
    choice = {
        "checkpoint": recipe.train.checkpoint,
        "best_by": recipe.train.best_by if is_judged else BEST_BY[0],
    }
    chosen = Rule(
        name=recipe.train.result,
        image=recipe.train.image,
        stage="sft.adapter",
        options=choice,
        fields=name_fields("train", *choice),
        inputs={"training": TRAINING},
        estimated_bytes=weights_bytes,
    )
    return [run, chosen]


def _model_checkpoints(train: Train) -> int:
    """Return about how many checkpoints a run keeps; how many steps there are, the rows decide."""
    if not train.max_steps:
        return math.ceil(train.epochs) + (_LIKELY_CHECKPOINTS if train.checkpoint_steps else 0)
    between = train.checkpoint_steps or train.max_steps
    return 1 + math.ceil(train.max_steps / between)
