"""recipe -> the rules, in order, on one screen: the only file that knows both sides.

A rule says which stage makes an artifact, in which image, from what. Everything that may change an
artifact's bytes stands in its options; where it lies does not.
"""

import math
from collections.abc import Collection, Sequence
from pathlib import Path

from pipeline.artifact.rule import Rule
from pipeline.data.source import HUB
from pipeline.estimate.estimate import Estimate
from pipeline.gguf_types import CONVERTED
from pipeline.recipe.checkpoint import BEST, BEST_BY
from pipeline.recipe.dataset import DEMO
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.row_sources import find_hub_splits, make_absent_sources, make_row_sources
from pipeline.recipe.template import read_template_source
from pipeline.recipe.train import RESULTS, Train
from pipeline.source_files import list_checkpoint_files

# How the rows of all sources are cleaned and split.
_CLEANING = (
    "held_out",
    "seed",
    "max_characters",
    "require_thinking",
    "near_duplicates",
    "contamination_words",
    "conversation_extension",
)
# How they become ids, and these masks.
_RENDERING = ("sequence_length", "too_long", "thinking")
_MASKING = (*_RENDERING, "supervise")
_THREADS = {"options.cpu_threads": "train.cpu_threads"}
_TEMPLATE = {"options.chat_template": "dataset.template"}
# The image says the first, the choice of a checkpoint the second, and the rest changes no byte.
_NO_OPTIONS = ("accelerator", "checkpoint", "report_to", "hosts", "address")
TRAINING = "training"
# The stage whose steps `watch` shows.
TRAINING_STAGE = "sft.training"
# Two of the trainer's states are kept: a trained weight and two moments of AdamW, in 32 bits.
_STATE_BYTES = 2 * 3 * 4
_LIKELY_CHECKPOINTS = 10


def make_rules(
    recipe: Recipe, estimate: Estimate, digests: Path, *, absent: Collection[str] = ()
) -> tuple[Rule, ...]:
    """Return the recipe's rules in an order that builds.

    `digests` is the file that remembers the sha256 of the user's own files. Those of the artifacts
    in `absent` are not looked at: their rules, and all that follow, have keys of no use.
    """
    threads = {"cpu_threads": recipe.train.cpu_threads}
    return (
        *_make_fetches(recipe),
        _make_rows(recipe, estimate, digests, is_absent="rows" in absent),
        _make_base(recipe, estimate, digests, is_absent="base" in absent),
        Rule(
            name="text",
            image="convert",
            stage="checkpoint.text",
            options={**threads, **_make_template(recipe)},
            fields=_THREADS | _TEMPLATE,
            inputs={"base": "base"},
            estimated_bytes=estimate.text_bytes,
        ),
        _make_dataset(recipe, estimate),
        _make_dataset_report(recipe, estimate),
        *_make_training_rules(recipe, estimate),
        *_make_merge_rules(recipe, estimate),
        *_make_imatrix_rules(recipe, estimate),
        *(_make_gguf_rule(each, recipe, estimate) for each in recipe.gguf.types),
        *_make_answers_rules(recipe),
    )


def _make_dataset(recipe: Recipe, estimate: Estimate) -> Rule:
    return Rule(
        name="dataset",
        image=recipe.train.image,
        stage="data.dataset",
        options={each: getattr(recipe.dataset, each) for each in _MASKING},
        fields=_name_fields("dataset", *_MASKING),
        inputs={"text": "text", "rows": "rows"},
        estimated_bytes=estimate.dataset_bytes,
        # Its parts stay in the work area until it is sealed.
        scratch_bytes=estimate.dataset_bytes,
        resumes=True,
    )


def _make_dataset_report(recipe: Recipe, estimate: Estimate) -> Rule:
    """The page that shows the data set: nothing is made from it, and it is built when asked for."""
    return Rule(
        name="dataset-report",
        image=recipe.train.image,
        stage="data.report",
        options={},
        inputs={"text": "text", "dataset": "dataset", "rows": "rows"},
        estimated_bytes=estimate.report_bytes,
    )


def _make_template(recipe: Recipe) -> dict[str, str]:
    """Return the option of everything that carries the chat template: its source."""
    return {"chat_template": read_template_source(recipe.dataset.template)}


def _make_training_rules(recipe: Recipe, estimate: Estimate) -> list[Rule]:
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
        fields=_name_fields("train", *training),
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
        fields=_name_fields("train", *choice),
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


def _make_merge_rules(recipe: Recipe, estimate: Estimate) -> list[Rule]:
    """What is made of an adapter on demand: weights that were trained whole are merged as they
    are."""
    merged = Rule(
        name="merged",
        image="convert",
        stage="checkpoint.merged",
        options={"cpu_threads": recipe.train.cpu_threads},
        fields=_THREADS,
        inputs={"text": "text", "adapter": "adapter"},
        estimated_bytes=estimate.text_bytes,
    )
    adapter_gguf = Rule(
        name="adapter-gguf",
        image="convert",
        stage="checkpoint.adapter_gguf",
        options={"model_name": recipe.gguf.name, **_make_template(recipe)},
        fields={"options.model_name": "gguf.name", **_TEMPLATE},
        inputs={"base": "base", "adapter": "adapter"},
        estimated_bytes=estimate.adapter_bytes,
    )
    return [merged, adapter_gguf] if recipe.train.result == "adapter" else []


def _list_weights(recipe: Recipe) -> dict[str, str]:
    """Return the inputs that the trained weights are read from: a base and its adapter, or a
    checkpoint that was trained whole."""
    if recipe.train.result == "adapter":
        return {"base": "base", "adapter": "adapter"}
    return {"base": recipe.train.result}


def _make_imatrix_rules(recipe: Recipe, estimate: Estimate) -> list[Rule]:
    """Made only when the recipe asks for it; every quantized file then uses it."""
    rule = Rule(
        name="imatrix",
        image="convert",
        stage="checkpoint.imatrix",
        options={
            "calibration": recipe.gguf.calibration,
            **{each: getattr(recipe.dataset, each) for each in _RENDERING},
            **_make_template(recipe),
            "cpu_threads": recipe.train.cpu_threads,
        },
        fields=_name_fields("gguf", "calibration")
        | _name_fields("dataset", *_RENDERING)
        | _TEMPLATE
        | _THREADS,
        inputs=_list_weights(recipe) | {"rows": "rows"},
        estimated_bytes=estimate.imatrix_bytes,
    )
    return [rule] if recipe.gguf.calibration else []


def _make_gguf_rule(file_type: str, recipe: Recipe, estimate: Estimate) -> Rule:
    """Each file comes from the checkpoint in one pass; no artifact lies between."""
    is_quantized = file_type not in CONVERTED
    overrides = recipe.gguf.tensor_types if is_quantized else ()
    imatrix = {"imatrix": "imatrix"} if is_quantized and recipe.gguf.calibration else {}
    return Rule(
        name=f"gguf-{file_type}",
        image="convert",
        stage="checkpoint.gguf",
        options={
            "type": file_type,
            "model_name": recipe.gguf.name,
            "tensor_types": overrides,
            **_make_template(recipe),
        },
        fields={
            "options.model_name": "gguf.name",
            "options.tensor_types": "gguf.tensor_types",
            **_TEMPLATE,
        },
        inputs=_list_weights(recipe) | imatrix,
        estimated_bytes=estimate.gguf_bytes[file_type],
    )


def _make_answers_rules(recipe: Recipe) -> list[Rule]:
    """The served files are graded unless no problem is asked; the model before export when the
    recipe wants it."""
    if not recipe.evaluate.problems:
        return []
    asked = {"problems": recipe.evaluate.problems, "max_tokens": recipe.evaluate.max_tokens}
    before_export = Rule(
        name="answers-checkpoint",
        image=recipe.train.image,
        stage="evaluate.checkpoint",
        options=asked | {"batch_size": 100, "cpu_threads": recipe.train.cpu_threads},
        fields=_name_fields("evaluate", *asked) | _THREADS,
        inputs={"text": "text", recipe.train.result: recipe.train.result, "rows": "rows"},
    )
    served = Rule(
        name="answers",
        image=recipe.serve.image,
        stage="evaluate.served",
        options=asked
        | {
            "types": recipe.gguf.types,
            "temperature": recipe.evaluate.temperature,
            "seed": recipe.evaluate.seed,
            "parallel": recipe.evaluate.parallel,
            "threads": recipe.train.cpu_threads,
        },
        fields=_name_fields("evaluate", *asked, "temperature", "seed", "parallel")
        | {"options.types": "gguf.types", "options.threads": "train.cpu_threads"},
        inputs={"rows": "rows"} | {each: f"gguf-{each}" for each in recipe.gguf.types},
    )
    return [before_export, served] if recipe.evaluate.before_export else [served]


def _make_base(recipe: Recipe, estimate: Estimate, digests: Path, *, is_absent: bool) -> Rule:
    if recipe.base.source == DEMO:
        return Rule(
            name="base",
            image=recipe.train.image,
            stage="demo.base",
            options={
                "seed": recipe.demo.seed,
                "digits": recipe.demo.digits,
                "hidden_size": recipe.demo.hidden_size,
                "steps": recipe.demo.steps,
                "held_out": recipe.dataset.held_out,
                "cpu_threads": recipe.train.cpu_threads,
            },
            fields=_name_fields("demo", "seed", "digits", "hidden_size", "steps")
            | _name_fields("dataset", "held_out")
            | _THREADS,
            estimated_bytes=estimate.base_bytes,
        )
    if recipe.base.source.startswith(HUB):
        return Rule(
            name="base",
            image="convert",
            stage="hub.checkpoint",
            options={
                "repository": recipe.base.source.removeprefix(HUB),
                "revision": recipe.base.revision,
            },
            fields={"options.repository": "base.source", "options.revision": "base.revision"},
            estimated_bytes=estimate.base_bytes,
            fetches=True,
            resumes=True,
        )
    source = Path(recipe.base.source)
    return Rule(
        name="base",
        image="convert",
        stage="checkpoint.base",
        options={"files": () if is_absent else list_checkpoint_files(source, digests)},
        fields={"options.files": "base.source"},
        sources={"source": source},
        estimated_bytes=estimate.base_bytes,
    )


def _make_rows(recipe: Recipe, estimate: Estimate, digests: Path, *, is_absent: bool) -> Rule:
    if recipe.dataset.source == DEMO:
        return Rule(
            name="rows",
            image=recipe.train.image,
            stage="demo.rows",
            options={
                "seed": recipe.demo.seed,
                "digits": recipe.demo.digits,
                "rows": recipe.demo.rows,
                "held_out": recipe.dataset.held_out,
            },
            fields=_name_fields("demo", "seed", "digits", "rows")
            | _name_fields("dataset", "held_out"),
            estimated_bytes=estimate.rows_bytes,
        )
    rows = (
        make_absent_sources(recipe.dataset)
        if is_absent
        else make_row_sources(recipe.dataset, digests)
    )
    fetched = {label: split.artifact for label, split in rows.fetched.items()}
    return Rule(
        name="rows",
        image=recipe.train.image,
        stage="data.rows",
        options={"sources": rows.sources}
        | {name: getattr(recipe.dataset, name) for name in _CLEANING},
        fields=_name_fields("dataset", *_CLEANING) | {"options.sources": "dataset.source"},
        inputs=fetched,
        sources=rows.paths,
        estimated_bytes=estimate.rows_bytes,
        scratch_bytes=estimate.rows_scratch_bytes,
    )


def _make_fetches(recipe: Recipe) -> list[Rule]:
    """One for each split of the hub's that rows are read from; no other stage has a network."""
    splits = {split.artifact: split for split in find_hub_splits(recipe.dataset).values()}
    return [
        Rule(
            name=name,
            image=recipe.train.image,
            stage="hub.dataset",
            options=vars(split),
            fields={"options.repository": "dataset.source"}
            | _name_fields("dataset", "revision", "subset", "split"),
            fetches=True,
            resumes=True,
        )
        for name, split in splits.items()
    ]


def list_images(recipe: Recipe) -> tuple[str, ...]:
    """Return the images that the recipe's stages and its server run in, in the order of building:
    the first two share what takes longest."""
    return ("convert", recipe.serve.image, recipe.train.image)


def list_targets(rules: Sequence[Rule], names: Sequence[str]) -> list[str]:
    """Return the artifacts that a command line means: "gguf" stands for every type, "trained" for
    what training is for, and no name at all for the GGUF files and the answers."""
    files = [rule.name for rule in rules if rule.name.startswith("gguf-")]
    answers = [rule.name for rule in rules if rule.name.startswith("answers")]
    if not names:
        return files + answers
    several = {"gguf": files, "trained": [each.name for each in rules if each.name in RESULTS]}
    return [each for name in names for each in several.get(name, [name])]


def list_results(rules: Sequence[Rule]) -> list[str]:
    """Return what a recipe is for and what nobody would want to wait for again: what no name asks
    for, and what was trained with all of its checkpoints."""
    return [TRAINING, *list_targets(rules, ["trained"]), *list_targets(rules, [])]


def _name_fields(table: str, *options: str) -> dict[str, str]:
    """Return the recipe's fields that options of the same names come from, for messages."""
    return {f"options.{name}": f"{table}.{name}" for name in options}
