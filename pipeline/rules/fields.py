"""Options that several rules share, and the fields of the recipe that they come from."""

from pipeline.recipe.recipe import Recipe
from pipeline.recipe.template import read_template_source

# How rows become ids, and these masks.
RENDERING = ("sequence_length", "too_long", "thinking")
MASKING = (*RENDERING, "supervise")
THREADS = {"options.cpu_threads": "train.cpu_threads"}
TEMPLATE = {"options.chat_template": "dataset.template"}


def name_fields(table: str, *options: str) -> dict[str, str]:
    """Return the recipe's fields that options of the same names come from, for messages."""
    return {f"options.{name}": f"{table}.{name}" for name in options}


def make_template(recipe: Recipe) -> dict[str, str]:
    """Return the option of everything that carries the chat template: its source."""
    return {"chat_template": read_template_source(recipe.dataset.template)}
