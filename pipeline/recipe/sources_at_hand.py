"""Which of a recipe's sources a plan can name by what they hold, without a long wait."""

from pathlib import Path

from pipeline.data.source import HUB
from pipeline.recipe.dataset import DEMO
from pipeline.recipe.evaluate import list_exam_paths
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.row_sources import list_row_paths
from pipeline.source_files import count_unhashed_bytes, list_checkpoint_paths

# As much is hashed for a plan; a build does it for any size, once.
_AT_ONCE_BYTES = 1 << 30

_NOT_HERE = "its source is not here"
_NOT_HASHED = "its source is not hashed yet: the first build does that, once"


def find_absent(recipe: Recipe, digests: Path) -> dict[str, str]:
    """Return the artifacts made of the user's own files whose digests are not at hand, and why.

    What is on the hub is known by its commit.
    """
    paths = {"rows": [] if recipe.dataset.source == DEMO else list_row_paths(recipe.dataset)}
    if exams := list(list_exam_paths(recipe.evaluate).values()):
        paths["answers"] = exams
        if recipe.evaluate.before_export:
            paths["answers-checkpoint"] = exams
    found = {}
    if recipe.base.source != DEMO and not recipe.base.source.startswith(HUB):
        paths["base"] = list_checkpoint_paths(Path(recipe.base.source))
        # Of a base whose small files alone are here, a build would find others.
        if not any(path.suffix == ".safetensors" for path in paths["base"]):
            found["base"] = _NOT_HERE
    for name, needed in paths.items():
        if not all(path.is_file() for path in needed):
            found[name] = _NOT_HERE
        elif count_unhashed_bytes(needed, digests) > _AT_ONCE_BYTES:
            found.setdefault(name, _NOT_HASHED)
    return found
