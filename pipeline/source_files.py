"""The user's own files -> their digests, so that a key names what they hold and not where they lie.

A digest is taken once and remembered by the file's identity (device, inode, size, and both times),
since a base checkpoint may have 26 GB. The time of the last change to the inode is among them: no
program can set that one, while a modification time may be anything.
"""

import json
import os
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pipeline.artifact.hashing import hash_file
from pipeline.data.source import READERS, SAVED
from pipeline.log import say

# Of a checkpoint besides its weights: configuration, tokenizer, chat template.
SMALL = (".json", ".jinja", ".txt", ".model")

# Files beside a data set's rows that are no rows.
_DESCRIBING = ("dataset_info", "dataset_infos", "state", "README")
_SAY_FROM_BYTES = 1 << 30
_SETTLED_S = 3.0


def list_checkpoint_files(directory: Path, digests: Path) -> tuple[str, ...]:
    """Return "sha256  name" of the checkpoint's files, by name.

    That is: its small files, and the safetensors that its index names; without an index, those
    whose name starts with "model". Other weights (`consolidated*`) are a second copy. A file that
    the index names and that is missing is left out here; the stage then says so.
    """
    names = _list_names(directory)
    return tuple(f"{list_file(directory / name, digests)}  {name}" for name in names)


def list_checkpoint_paths(directory: Path) -> list[Path]:
    """Return the checkpoint's files, those of the list above; none where there is no directory."""
    return [directory / name for name in _list_names(directory)] if directory.is_dir() else []


def list_row_files(directory: Path, split: str) -> tuple[str, ...]:
    """Return the names of the files of rows at and under the directory, in order.

    Of one that `save_to_disk` wrote these are all its files. Elsewhere, where the split's name
    stands in some files' names as a word ("train.jsonl", "data/train-00000.parquet"), only those.
    """
    paths = sorted(path for path in directory.rglob("*") if path.is_file())
    names = [path.relative_to(directory).as_posix() for path in paths]
    seen = [name for name in names if not any(part[0] == "." for part in name.split("/"))]
    if set(SAVED).intersection(seen):
        return tuple(seen)
    read = [name for name in seen if Path(name).suffix.lower() in READERS]
    rows = [name for name in read if Path(name).stem not in _DESCRIBING]
    word = re.compile(rf"(?<![A-Za-z]){re.escape(split)}(?![A-Za-z])")
    return tuple([name for name in rows if word.search(name)] or rows)


def list_file(path: Path, digests: Path) -> str:
    """Return the sha256 of the file, remembered in the file `digests`."""
    known = _read_digests(digests)
    status = path.stat()
    identity = _identify(status)
    if identity in known:
        return known[identity]
    if status.st_size >= _SAY_FROM_BYTES:
        say(f"hashing {path.name} ({status.st_size:,} bytes), once")
    digest = hash_file(path)
    # What changed a moment ago may change again within the clock's grain, and look the same.
    if time.time() - status.st_ctime > _SETTLED_S and _identify(path.stat()) == identity:
        _remember({**known, identity: digest}, digests)
    return digest


def are_remembered(source: Path, digests: Path) -> bool:
    """Return whether every digest of the checkpoint's directory, or of the one file, is in the file
    `digests`: then nothing need be hashed."""
    paths = [source / name for name in _list_names(source)] if source.is_dir() else [source]
    known = _read_digests(digests)
    return all(_identify(path.stat()) in known for path in paths)


def count_unhashed_bytes(paths: Iterable[Path], digests: Path) -> int:
    """Return the bytes of the files whose digests are not in the file `digests`."""
    known = _read_digests(digests)
    found = [path.stat() for path in paths]
    return sum(status.st_size for status in found if _identify(status) not in known)


def _identify(status: os.stat_result) -> str:
    numbers = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return ":".join(map(str, numbers))


def _remember(known: dict[str, str], digests: Path) -> None:
    """Write the digests; a store that is read-only here goes without."""
    temporary = digests.with_suffix(f".{os.getpid()}")
    with suppress(OSError):
        temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
        temporary.replace(digests)


def _list_names(directory: Path) -> list[str]:
    names = [path.name for path in directory.iterdir() if path.suffix in SMALL and path.is_file()]
    return sorted({*names, *_list_shards(directory)})


def _list_shards(directory: Path) -> list[str]:
    index = directory / "model.safetensors.index.json"
    try:
        named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [path.name for path in directory.glob("model*.safetensors") if path.is_file()]
    present = {path.name for path in directory.glob("*.safetensors") if path.is_file()}
    return sorted(name for name in named if name in present)


def _read_digests(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
