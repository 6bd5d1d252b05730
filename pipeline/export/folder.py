"""What others need of a recipe's results, in one folder, under the names that they expect.

The GGUF files are linked where the store's file system can, else copied; nothing is edited. The
folder is made beside its place and then takes it, so it is whole or not there.
"""

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifact.hashing import hash_file
from pipeline.artifact.store import Artifact
from pipeline.artifact.workspace import remove_tree
from pipeline.errors import CapacityError, UsageError
from pipeline.report.quality import FILE, read_sizes

SUMS = "SHA256SUMS"
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A file of the folder: a sealed one with its digest, or a text of ours."""

    name: str
    source: Path | None = None
    sha256: str = ""
    text: str = ""


def make_file_name(model: str, file_type: str) -> str:
    """Return name-TYPE.gguf, by which llama.cpp, LM Studio, Jan and the hub tell types."""
    return f"{make_plain(model)}-{file_type}.gguf"


def make_plain(name: str) -> str:
    """Return the name in letters, digits, dots, dashes and underscores."""
    return _NOT_IN_NAMES.sub("-", name).strip("-.") or "model"


def list_ggufs(model: str, sealed: Mapping[str, Artifact]) -> Iterator[Entry]:
    """Yield an entry for each sealed GGUF, in the order of the recipe."""
    for file_type in read_sizes(sealed):
        artifact = sealed[f"gguf-{file_type}"]
        (file,) = (each for each in artifact.manifest.files if each.path == FILE)
        yield Entry(
            name=make_file_name(model, file_type), source=artifact.path / FILE, sha256=file.sha256
        )


def write_folder(directory: Path, entries: Sequence[Entry]) -> None:
    """Write the entries and SHA256SUMS, in place of a folder that this wrote before.

    Raises UsageError when something else lies there.
    """
    if directory.exists() and not (directory / SUMS).is_file() and any(directory.iterdir()):
        raise UsageError(
            "the folder holds something else",
            on=str(directory),
            why=f"it has no {SUMS}, so no export of ours made it",
            then="name another one by --to DIR, or remove it",
        )
    directory.parent.mkdir(parents=True, exist_ok=True)
    _require_space(directory.parent, entries)
    unfinished = directory.with_name(f".{directory.name}.{os.getpid()}")
    try:
        unfinished.mkdir()
        lines = [f"{_write(each, unfinished)}  {each.name}\n" for each in entries]
        (unfinished / SUMS).write_text("".join(sorted(lines, key=lambda line: line[66:])))
        if directory.exists():
            remove_tree(directory)
        unfinished.rename(directory)
    finally:
        if unfinished.exists():
            remove_tree(unfinished)


def _require_space(folder: Path, entries: Sequence[Entry]) -> None:
    """Raise CapacityError where the files cannot be linked and their copies would not fit."""
    sources = [each.source for each in entries if each.source is not None]
    device = folder.stat().st_dev
    needed = sum(path.stat().st_size for path in sources if path.stat().st_dev != device)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise CapacityError(
            "not enough disk space for the exported files",
            on=str(folder),
            why=f"it is not on the store's file system, so {needed:,} bytes would be copied;"
            f" {free:,} are free",
            then="name a folder on the store's file system by --to DIR, or free space",
        )


def _write(entry: Entry, directory: Path) -> str:
    """Write one file; return its sha256."""
    path = directory / entry.name
    if entry.source is None:
        path.write_text(entry.text, encoding="utf-8")
        return hash_file(path)
    try:
        path.hardlink_to(entry.source)
    except OSError:
        # Another file system, or one without links.
        shutil.copyfile(entry.source, path)
    return entry.sha256
