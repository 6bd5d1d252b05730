"""Rules of what a recipe begins with: the base, the rows, and what of them is fetched."""

from pathlib import Path

from pipeline.artifact.rule import Rule
from pipeline.data.source import HUB
from pipeline.estimate.estimate import Estimate
from pipeline.recipe.dataset import DEMO
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.row_sources import find_hub_splits, make_absent_sources, make_row_sources
from pipeline.rules.fields import THREADS, name_fields
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


def make_fetches(recipe: Recipe) -> list[Rule]:
    """One for each split of the hub's that rows are read from; no other stage has a network."""
    splits = {split.artifact: split for split in find_hub_splits(recipe.dataset).values()}
    return [
        Rule(
            name=name,
            image=recipe.train.image,
            stage="hub.dataset",
            options=vars(split),
            fields={"options.repository": "dataset.source"}
            | name_fields("dataset", "revision", "subset", "split"),
            fetches=True,
            resumes=True,
        )
        for name, split in splits.items()
    ]


def make_base(recipe: Recipe, estimate: Estimate, digests: Path, *, is_absent: bool) -> Rule:
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
            fields=name_fields("demo", "seed", "digits", "hidden_size", "steps")
            | name_fields("dataset", "held_out")
            | THREADS,
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


def make_rows(recipe: Recipe, estimate: Estimate, digests: Path, *, is_absent: bool) -> Rule:
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
            fields=name_fields("demo", "seed", "digits", "rows")
            | name_fields("dataset", "held_out"),
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
        fields=name_fields("dataset", *_CLEANING) | {"options.sources": "dataset.source"},
        inputs=fetched,
        sources=rows.paths,
        estimated_bytes=estimate.rows_bytes,
        scratch_bytes=estimate.rows_scratch_bytes,
    )
