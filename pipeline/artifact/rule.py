"""What the engine knows of an artifact before it exists. It knows nothing of models."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NewType

Digest = NewType("Digest", str)
"""sha256 of some bytes, 64 hex digits."""

Key = NewType("Key", str)
"""sha256 of an artifact's key document, 64 hex digits."""

Option = str | int | float | bool | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How one artifact is made: which stage, in which image, with which options and inputs.

    `inputs` maps the label that the stage reads to the name of the rule that makes it. `source` is
    a directory of the user's, given to the stage as input "source"; it is not part of the key,
    since the digests of its files stand in the options. `locations` are further options that only
    say where something lies or what it is called: the stage gets them, the key does not. `fields`
    maps a field of the key document to the recipe's field that it comes from, for messages.
    """

    name: str
    image: str
    stage: str
    options: Mapping[str, Option]
    inputs: Mapping[str, str] = field(default_factory=dict)
    source: Path | None = None
    locations: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    estimated_bytes: int = 0
