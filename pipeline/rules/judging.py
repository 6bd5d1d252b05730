"""Rules of how good a recipe's files are: what they answer, and how far they are from 16 bits."""

from pathlib import Path

from pipeline.artifact.rule import Rule
from pipeline.estimate.estimate import Estimate
from pipeline.recipe.evaluate import list_exam_paths, make_exams
from pipeline.recipe.recipe import Recipe
from pipeline.rules.fields import MASKING, TEMPLATE, THREADS, make_template, name_fields


def make_answers_rules(recipe: Recipe, digests: Path, *, is_absent: bool) -> list[Rule]:
    """The served files are graded unless no problem is asked; the model before export when the
    recipe wants it."""
    if not (recipe.evaluate.problems or recipe.evaluate.rows):
        return []
    exams = list_exam_paths(recipe.evaluate)
    named = {each: getattr(recipe.evaluate, each) for each in ("problems", "answer", "max_tokens")}
    asked = named | {"exams": () if is_absent else make_exams(recipe.evaluate, digests)}
    fields = name_fields("evaluate", *named) | {"options.exams": "evaluate.rows"}
    before_export = Rule(
        name="answers-checkpoint",
        image=recipe.train.image,
        stage="evaluate.checkpoint",
        options=asked | {"batch_size": 100, "cpu_threads": recipe.train.cpu_threads},
        fields=fields | THREADS,
        inputs={"text": "text", recipe.train.result: recipe.train.result, "rows": "rows"},
        sources=exams,
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
        fields=fields
        | name_fields("evaluate", "temperature", "seed", "parallel")
        | {"options.types": "gguf.types", "options.threads": "train.cpu_threads"},
        inputs={"rows": "rows"} | {each: f"gguf-{each}" for each in recipe.gguf.types},
        sources=exams,
    )
    return [before_export, served] if recipe.evaluate.before_export else [served]


def make_divergence_rules(recipe: Recipe, estimate: Estimate) -> list[Rule]:
    """The quantized files are compared with the 16-bit one where the recipe says on how much."""
    rule = Rule(
        name="divergence",
        image="convert",
        stage="checkpoint.divergence",
        options={
            "types": recipe.gguf.types,
            "tokens": recipe.evaluate.divergence_tokens,
            **{each: getattr(recipe.dataset, each) for each in MASKING},
            **make_template(recipe),
            "cpu_threads": recipe.train.cpu_threads,
        },
        fields={"options.types": "gguf.types", "options.tokens": "evaluate.divergence_tokens"}
        | name_fields("dataset", *MASKING)
        | TEMPLATE
        | THREADS,
        inputs={"base": "base", "rows": "rows"}
        | {each: f"gguf-{each}" for each in recipe.gguf.types},
        # The 16-bit file's logits wait in it.
        scratch_bytes=estimate.divergence_scratch_bytes,
    )
    return [rule] if recipe.evaluate.divergence_tokens else []
