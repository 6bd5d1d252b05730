"""A source of the recipe -> its records: files that are what was planned, read by their kind."""

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pipeline.data.hub import read_fetched, read_saved
from pipeline.data.readers import Record, read_records
from pipeline.data.source import READERS, SAVED, Source
from pipeline.errors import StageError


def read_source(source: Source, place: Path, label: str) -> Iterator[Record]:
    """Yield the records of the file or directory `place`, in a fixed order.

    `label` is what rows of a saved dataset call it: a directory may have any name.

    Raises StageError when a file is not as planned.
    """
    if source.hub:
        yield from read_fetched(place, source.hub)
        return
    names = [place.name] if source.is_file else [file.name for file in source.files]
    paths = [place] if source.is_file else [place / name for name in names]
    for path, name, file in zip(paths, names, source.files, strict=True):
        _require_planned(path, name, file.sha256)
    if set(SAVED).intersection(names):
        yield from read_saved(place, source.split, label)
        return
    for path, name, file in zip(paths, names, source.files, strict=True):
        reader = READERS[PurePosixPath(file.name).suffix.lower()]
        yield from read_records(path, reader, name)


def _require_planned(path: Path, name: str, sha256: str) -> None:
    if not path.is_file():
        raise StageError(
            "the dataset's file is missing",
            on=name,
            why="the recipe names a file that its directory does not hold",
            then="correct dataset.source in the recipe",
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise StageError(
            "the dataset's file is not the one that was planned",
            on=name,
            why=f"its sha256 is {digest}, planned was {sha256}: it changed meanwhile",
            then="build again",
        )
