"""Where a plan has the base's config.json from: the base itself, a shipped copy, the demonstration.

A copy lies in recipes/models/NAME/config.json, NAME being the last part of the base's source, so
that `/models/NAME` and `hf://owner/NAME` both find it: a plan then needs nothing but the recipe.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact.key import REPOSITORY
from pipeline.data.source import HUB
from pipeline.demo.shape import make_config
from pipeline.errors import UsageError

MODELS = REPOSITORY / "recipes" / "models"

CHECKPOINT, SHIPPED, DEMONSTRATION = "checkpoint", "shipped copy", "demonstration"

_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True, kw_only=True)
class BaseConfig:
    """config.json and generation_config.json of a base.

    `origin` is CHECKPOINT, SHIPPED or DEMONSTRATION; `directory` holds the base's own files, where
    they are at hand.
    """

    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    origin: str
    on: str
    directory: Path | None = None

    @property
    def text(self) -> dict[str, Any]:
        """The text model's config, with its special tokens' ids as the text stage writes them."""
        text = dict(self.config.get("text_config") or self.config)
        for key in _SPECIAL_IDS:
            sources = (text, self.config, self.generation)
            text[key] = next((each[key] for each in sources if each.get(key) is not None), None)
        return text


def make_demo_config(hidden_size: int) -> BaseConfig:
    """Return the config of the demonstration's base."""
    config = make_config(hidden_size)
    return BaseConfig(config=config, generation={}, origin=DEMONSTRATION, on="the demonstration")


def find_config(source: str) -> BaseConfig | None:
    """Return the config of a base that is a directory or named on a hub; None when neither the
    base is here nor a copy is shipped.

    Raises UsageError when the file holds no JSON object.
    """
    directory = Path(source)
    if (directory / "config.json").is_file():
        return _read(directory, CHECKPOINT, directory)
    shipped = find_shipped(source)
    return _read(shipped, SHIPPED, None) if (shipped / "config.json").is_file() else None


def read_config(source: str) -> BaseConfig:
    """Return the same. Raises UsageError also when there is none."""
    # What is on the hub is planned from a copy.
    missing = find_shipped(source) if source.startswith(HUB) else Path(source)
    return find_config(source) or _read(missing, CHECKPOINT, None)


def find_shipped(source: str) -> Path:
    """Return the directory that would hold the copy."""
    return MODELS / (source.rstrip("/").rpartition("/")[2] or "-")


def _read(directory: Path, origin: str, files: Path | None) -> BaseConfig:
    generation = directory / "generation_config.json"
    return BaseConfig(
        config=_read_object(directory / "config.json"),
        generation=_read_object(generation) if generation.is_file() else {},
        origin=origin,
        on=str(directory / "config.json"),
        directory=files,
    )


def _read_object(path: Path) -> Mapping[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(config, dict):
            return config
        why = "it holds no object"
    except (OSError, ValueError) as error:
        why = str(error)
    raise UsageError(
        "the base is no Hugging Face checkpoint",
        on=str(path),
        why=why,
        then="name the directory that holds config.json and the safetensors; of a base on the hub,"
        " put its config.json there: sizes are said before anything is fetched",
    )
