"""Mistral's published vocabulary of 131,072 entries: tekken.json, as a package carries it.

The package lies in an environment of its own, on no test's path. `python -m tests` makes it.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.engine import packages
from pipeline.engine.environment import Environment, make_once
from pipeline.engine.image import make_files_document
from pipeline.log import say

_LOCK = Path(__file__).with_name("tekken.lock")
_FILE = Path("mistral_common", "data", "tekken_240911.json")
_ENVIRONMENT = Environment(
    name="tekken",
    document={"source": make_files_document(_LOCK, Path(__file__), Path(packages.__file__))},
)


@dataclass(frozen=True, kw_only=True)
class Tekken:
    """A vocabulary: the id of a ranked token is its rank behind the control tokens."""

    ranks: Mapping[bytes, int]
    control_count: int
    pattern: str


def prepare(envs_dir: Path) -> None:
    """Fetch the vocabulary unless it is there."""

    def make(path: Path, log_path: Path) -> None:
        packages.make_venv(path, [_LOCK], title="tekken vocabulary", log_path=log_path)

    if not _ENVIRONMENT.is_complete(envs_dir):
        say("tekken vocabulary: fetching ...")
        envs_dir.mkdir(parents=True, exist_ok=True)
        make_once(_ENVIRONMENT, envs_dir, make)


def read_tekken(envs_dir: Path) -> Tekken:
    """Return the vocabulary that `prepare` has fetched."""
    folder = packages.find_site_packages(_ENVIRONMENT.find(envs_dir))
    document = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    config = document["config"]
    control_count = config["default_num_special_tokens"]
    # The file goes on: Mistral's own reader cuts it here, too.
    used = document["vocab"][: config["default_vocab_size"] - control_count]
    ranks = {base64.b64decode(each["token_bytes"]): each["rank"] for each in used}
    return Tekken(ranks=ranks, control_count=control_count, pattern=config["pattern"])
