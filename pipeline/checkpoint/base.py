"""Stage: the user's own copy of a published checkpoint -> a sealed one.

In: `source`, a directory. Out: the files that the options name, each with the sha256 that the
options say, and nothing else: a second copy of the weights (`consolidated*`) stays behind.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoint.shard_plan import INDEX
from pipeline.checkpoint.shards import read_checkpoint
from pipeline.errors import StageError
from pipeline.log import say, step

_CHUNK_BYTES = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Options:
    files: tuple[str, ...]
    """`sha256  name`, as sha256sum writes it."""


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Copy the named files of `source`, whose weights are first checked against their index."""
    source = inputs["source"]
    checkpoint = read_checkpoint(source)
    say(f"{len(checkpoint.entries)} tensors in {len(checkpoint.shard_names)} shards")
    digests = {name: digest for digest, name in (line.split("  ", 1) for line in options.files)}
    _check_complete(set(digests), set(checkpoint.shard_names), source)
    with step(f"copy {len(digests)} files"):
        for name, digest in digests.items():
            _copy(source / name, out / name, digest)


def _check_complete(named: set[str], shards: set[str], source: Path) -> None:
    due = shards | {"config.json"} | ({INDEX} if (source / INDEX).is_file() else set())
    for name in sorted(due - named):
        raise StageError(
            "the base checkpoint changed while it was read",
            on=name,
            why="the weights need it, and it was not there when the build was planned",
            then="leave the directory alone and build again",
        )


def _copy(source: Path, target: Path, digest: str) -> None:
    """Copy one file, hashing what is written; the digest must be the planned one."""
    found = hashlib.sha256()
    try:
        with source.open("rb") as reader, target.open("xb") as writer:
            while chunk := reader.read(_CHUNK_BYTES):
                found.update(chunk)
                writer.write(chunk)
    except FileNotFoundError:
        found = hashlib.sha256()
    if found.hexdigest() != digest:
        raise StageError(
            "a file of the base checkpoint is not what was planned",
            on=source.name,
            why=f"its sha256 is {found.hexdigest()}, planned was {digest}: it changed, or is gone",
            then="leave the directory alone and build again",
        )
