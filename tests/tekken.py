"""Mistral's published vocabulary of 131,072 entries: tekken.json, as a package carries it.

The package lies in an environment of its own (`locked`).
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests import locked

LOCK = "tekken"
_FILE = Path("mistral_common", "data", "tekken_240911.json")


@dataclass(frozen=True, kw_only=True)
class Tekken:
    """A vocabulary: the id of a ranked token is its rank behind the control tokens."""

    ranks: Mapping[bytes, int]
    control_count: int
    pattern: str


def prepare(envs_dir: Path) -> None:
    """Fetch the vocabulary unless it is there."""
    locked.prepare(LOCK, envs_dir)


def read_tekken(envs_dir: Path) -> Tekken:
    """Return the vocabulary that `prepare` has fetched."""
    folder = locked.find_packages(LOCK, envs_dir)
    document = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    config = document["config"]
    control_count = config["default_num_special_tokens"]
    # The file goes on: Mistral's own reader cuts it here, too.
    used = document["vocab"][: config["default_vocab_size"] - control_count]
    ranks = {base64.b64decode(each["token_bytes"]): each["rank"] for each in used}
    return Tekken(ranks=ranks, control_count=control_count, pattern=config["pattern"])
