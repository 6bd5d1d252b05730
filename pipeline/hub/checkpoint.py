"""Stage: a checkpoint on the Hugging Face hub, at one commit -> the files that a base is.

In: nothing but the hub. Out: its small files (configuration, tokenizer, chat template) and the
safetensors that its index names, each the commit's: as a copy of the user's own would be. A second
copy of the weights (`consolidated*`) is not fetched. What a killed run has fetched lies in the work
area, and is not fetched again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from huggingface_hub import HfApi

from pipeline.checkpoint.shard_plan import INDEX
from pipeline.checkpoint.shards import read_checkpoint
from pipeline.errors import StageError
from pipeline.hub.files import Commit, explained, fetch_files, list_files, require_access
from pipeline.log import say
from pipeline.source_files import SMALL


@dataclass(frozen=True, kw_only=True)
class Options:
    repository: str
    revision: str


def run(inputs: Mapping[str, Path], options: Options, out: Path, work: Path) -> None:
    """Fetch the files.

    Raises StageError when the hub cannot be asked or refuses, when it has no such repository or
    commit, when a file is not the commit's, and when the weights are not those of their index.
    """
    commit = Commit(kind="model", repository=options.repository, revision=options.revision)
    require_access(commit)
    with explained(commit):
        names = HfApi().list_repo_files(commit.repository, revision=commit.revision)
    names = [name for name in names if "/" not in name]
    small = [name for name in names if PurePosixPath(name).suffix in SMALL]
    fetch_files(commit, list_files(commit, small), work=work, out=out)
    shards = _list_shards(commit, names, out / INDEX)
    fetch_files(commit, list_files(commit, shards), work=work, out=out)
    checkpoint = read_checkpoint(out)
    say(f"{len(checkpoint.entries)} tensors in {len(checkpoint.shard_names)} shards")


def _list_shards(commit: Commit, names: Sequence[str], index: Path) -> list[str]:
    """Return the safetensors that the index names; without one, those called "model"."""
    if index.is_file():
        try:
            named = set(json.loads(index.read_bytes())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _no_checkpoint(commit, f"{INDEX}: {type(error).__name__}: {error}") from None
        if missing := named.difference(names):
            raise _no_checkpoint(commit, f"{INDEX} names {min(missing)}, which is not there")
        return sorted(named)
    found = [name for name in names if fnmatchcase(name, "model*.safetensors")]
    if not found:
        raise _no_checkpoint(commit, "it has no model*.safetensors")
    return sorted(found)


def _no_checkpoint(commit: Commit, why: str) -> StageError:
    return StageError(
        "the hub's repository is no checkpoint of safetensors",
        on=str(commit),
        why=why,
        then="name one that transformers loads, or another commit of it",
    )
