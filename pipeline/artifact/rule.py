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

    `inputs` maps the label that the stage reads to the name of the rule that makes it. `sources`
    maps further labels to files and directories of the user's; where they lie is not part of the
    key, since the digests of their files stand in the options. `locations` are further options that
    change no byte: the stage gets them, the key does not. `fields` maps a field of the key document
    to the recipe's field that it comes from, for messages. A stage that `resumes` gets a work area
    (work_area.py). `scratch_bytes` is about what the stage takes on the disk besides its
    artifact while it runs. Only a stage that `fetches` has a network.
    """

    name: str
    image: str
    stage: str
    options: Mapping[str, Option]
    inputs: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Path] = field(default_factory=dict)
    locations: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    estimated_bytes: int = 0
    scratch_bytes: int = 0
    resumes: bool = False
    fetches: bool = False

    @property
    def needed_bytes(self) -> int:
        """About what the disk must have free for the artifact to be made."""
        return self.estimated_bytes + self.scratch_bytes
