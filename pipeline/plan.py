"""recipe -> the rules, in order, on one screen: the only file that knows both sides.

A rule says which stage makes an artifact, in which image, from what. Everything that may change an
artifact's bytes stands in its options; where it lies does not.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.artifact.rule import Rule
from pipeline.estimate import Estimate
from pipeline.gguf_types import CONVERTED
from pipeline.recipe import DEMO, Recipe
from pipeline.source_files import list_checkpoint_files, list_file

_THREADS = {"options.cpu_threads": "train.cpu_threads"}


def make_rules(recipe: Recipe, estimate: Estimate, digests: Path) -> tuple[Rule, ...]:
    """Return the recipe's rules in an order that builds.

    `digests` is the file that remembers the sha256 of the user's own files.
    """
    threads = {"cpu_threads": recipe.train.cpu_threads}
    # The image says it.
    training = {key: value for key, value in vars(recipe.train).items() if key != "accelerator"}
    return (
        _make_rows(recipe, estimate, digests),
        _make_base(recipe, estimate, digests),
        Rule(
            name="text",
            image="convert",
            stage="checkpoint.text",
            options=threads,
            fields=_THREADS,
            inputs={"base": "base"},
            estimated_bytes=estimate.text_bytes,
        ),
        Rule(
            name="dataset",
            image=recipe.train.image,
            stage="sft.dataset",
            options={"sequence_length": recipe.dataset.sequence_length},
            fields=_name_fields("dataset", "sequence_length"),
            inputs={"text": "text", "rows": "rows"},
            estimated_bytes=estimate.dataset_bytes,
        ),
        Rule(
            name="adapter",
            image=recipe.train.image,
            stage="sft.adapter",
            options=training,
            fields=_name_fields("train", *training),
            inputs={"text": "text", "dataset": "dataset"},
            estimated_bytes=4 * estimate.trainable_parameters,
        ),
        Rule(
            name="merged",
            image="convert",
            stage="checkpoint.merged",
            options=threads,
            fields=_THREADS,
            inputs={"text": "text", "adapter": "adapter"},
            estimated_bytes=estimate.text_bytes,
        ),
        Rule(
            name="adapter-gguf",
            image="convert",
            stage="checkpoint.adapter_gguf",
            options={"model_name": recipe.gguf.name},
            fields={"options.model_name": "gguf.name"},
            inputs={"base": "base", "adapter": "adapter"},
            estimated_bytes=4 * estimate.trainable_parameters,
        ),
        *_make_imatrix_rules(recipe, estimate),
        *(_make_gguf_rule(each, recipe, estimate) for each in recipe.gguf.types),
        *_make_answers_rules(recipe),
    )


def _make_imatrix_rules(recipe: Recipe, estimate: Estimate) -> list[Rule]:
    """Made only when the recipe asks for it; every quantized file then uses it."""
    rule = Rule(
        name="imatrix",
        image="convert",
        stage="checkpoint.imatrix",
        options={
            "calibration": recipe.gguf.calibration,
            "cpu_threads": recipe.train.cpu_threads,
        },
        fields=_name_fields("gguf", "calibration") | _THREADS,
        inputs={"base": "base", "adapter": "adapter", "rows": "rows"},
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
        },
        fields={
            "options.model_name": "gguf.name",
            "options.tensor_types": "gguf.tensor_types",
        },
        inputs={"base": "base", "adapter": "adapter"} | imatrix,
        estimated_bytes=estimate.gguf_bytes[file_type],
    )


def _make_answers_rules(recipe: Recipe) -> list[Rule]:
    """The served files are always graded; the model before export when the recipe asks."""
    asked = {"problems": recipe.evaluate.problems, "max_tokens": recipe.evaluate.max_tokens}
    before_export = Rule(
        name="answers-checkpoint",
        image=recipe.train.image,
        stage="evaluate.checkpoint",
        options=asked | {"batch_size": 100, "cpu_threads": recipe.train.cpu_threads},
        fields=_name_fields("evaluate", *asked) | _THREADS,
        inputs={"text": "text", "adapter": "adapter", "rows": "rows"},
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


def _make_base(recipe: Recipe, estimate: Estimate, digests: Path) -> Rule:
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
    source = Path(recipe.base.source)
    return Rule(
        name="base",
        image="convert",
        stage="checkpoint.base",
        options={"files": list_checkpoint_files(source, digests)},
        fields={"options.files": "base.source"},
        source=source,
        estimated_bytes=estimate.base_bytes,
    )


def _make_rows(recipe: Recipe, estimate: Estimate, digests: Path) -> Rule:
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
    source = Path(recipe.dataset.source)
    return Rule(
        name="rows",
        image=recipe.train.image,
        stage="sft.rows",
        options={
            "sha256": list_file(source, digests),
            "columns": recipe.dataset.columns,
            "held_out": recipe.dataset.held_out,
            "seed": recipe.dataset.seed,
        },
        fields=_name_fields("dataset", "columns", "held_out", "seed")
        | {"options.sha256": "dataset.source"},
        source=source.parent,
        locations={"file": source.name},
        estimated_bytes=estimate.rows_bytes,
    )


def list_images(recipe: Recipe) -> tuple[str, ...]:
    """Return the images that the recipe's stages and its server run in, in the order of building:
    the first two share what takes longest."""
    return ("convert", recipe.serve.image, recipe.train.image)


def list_targets(rules: Sequence[Rule], names: Sequence[str]) -> list[str]:
    """Return the artifacts that a command line means: "gguf" stands for every type, and no name at
    all for the GGUF files and the answers."""
    files = [rule.name for rule in rules if rule.name.startswith("gguf-")]
    answers = [rule.name for rule in rules if rule.name.startswith("answers")]
    if not names:
        return files + answers
    return [each for name in names for each in (files if name == "gguf" else [name])]


def list_results(rules: Sequence[Rule]) -> list[str]:
    """Return what a recipe is for and what nobody would want to wait for again: what no name asks
    for, and the adapter."""
    return ["adapter", *list_targets(rules, [])]


def _name_fields(table: str, *options: str) -> dict[str, str]:
    """Return the recipe's fields that options of the same names come from, for messages."""
    return {f"options.{name}": f"{table}.{name}" for name in options}
