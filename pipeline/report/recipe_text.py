"""A recipe as others may read it: what it says, without where things lie on this machine."""

import re
from pathlib import Path, PurePosixPath

from pipeline.data.source import HUB
from pipeline.recipe.dataset import DEMO

# A quoted text that begins like a path to somewhere outside the recipe's folder.
_PLACE = re.compile(r"""(["'])(?:/|~|\.\.?/)[^"'\n{}]*\1""")


def read_public_text(path: Path) -> str:
    """Return the recipe's text; of a path that leads elsewhere its last name is left."""
    return hide_places(path.read_text(encoding="utf-8"))


def hide_places(text: str) -> str:
    """Return TOML in which paths that lead out of the recipe's folder are their last name."""
    return _PLACE.sub(lambda found: f'"{PurePosixPath(found[0][1:-1]).name}"', text)


def name_source(source: str) -> str:
    """Return what a source is called, wherever it lies."""
    if source == DEMO:
        return "the demonstration's"
    return source if source.startswith(HUB) else PurePosixPath(source).name


def make_hub_id(source: str) -> str:
    """Return owner/name of a source on the hub; "" for one that is not there."""
    return source.removeprefix(HUB).partition("@")[0] if source.startswith(HUB) else ""
