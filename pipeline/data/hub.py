"""A data set that was fetched from the hub, or one that `datasets` saved -> its records.

`datasets` reads both; what it yields is what anyone's `load_dataset` or `load_from_disk` would. A
hub's data set is streamed from its fetched files, and runs no code of its own.
"""

import glob
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.data.readers import Record
from pipeline.errors import StageError

# What the stage `hub.dataset` writes: which files the split is and how they are read; the files.
DOCUMENT = "hub.json"
FILES = "files"


def read_saved(directory: Path, split: str, name: str) -> Iterator[Record]:
    """Yield the records of what `save_to_disk` wrote: a Dataset, or a DatasetDict's split."""
    import datasets
    import pyarrow as pa

    try:
        saved = datasets.load_from_disk(str(directory))
        if isinstance(saved, datasets.DatasetDict):
            saved = _choose_split(saved, split, name)
        yield from _number(saved, name)
    # What a damaged directory makes of the library is not one exception.
    except (
        pa.ArrowException,
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
    ) as error:
        raise StageError(
            "the saved dataset cannot be read",
            on=name,
            why=f"{type(error).__name__}: {error}",
            then="write it again with save_to_disk, or name its Parquet or JSONL files",
        ) from error


def read_fetched(directory: Path, hub: str) -> Iterator[Record]:
    """Yield the records of what the stage `hub.dataset` wrote: those of the hub's split."""
    import datasets
    import pyarrow as pa

    document = json.loads((directory / DOCUMENT).read_text(encoding="utf-8"))
    split, features = document["split"], document["features"]
    paths = [glob.escape(str(directory / FILES / name)) for name in document["files"]]
    try:
        rows = datasets.load_dataset(
            document["reader"],
            data_files={split: paths},
            features=datasets.Features.from_dict(features) if features else None,
            split=split,
            streaming=True,
            **document["settings"],
        )
        yield from _number(rows, hub)
    except (
        datasets.exceptions.DatasetsError,
        pa.ArrowException,
        OSError,
        ValueError,
        RuntimeError,
    ) as error:
        raise StageError(
            "the hub's data set cannot be read",
            on=f"{hub} at {document['revision']}, split {split}",
            why=f"{type(error).__name__}: {error}",
            then="choose another commit or subset of it, or download it and name its files",
        ) from error


def _choose_split(saved: Any, split: str, name: str) -> Any:
    if split in saved:
        return saved[split]
    raise StageError(
        f"the saved dataset has no split {split!r}",
        on=name,
        why=f"its splits are: {', '.join(saved)}",
        then="set dataset.split in the recipe",
    )


def _number(rows: Any, name: str) -> Iterator[Record]:
    for number, columns in enumerate(rows, start=1):
        yield Record(f"{name}:{number}", dict(columns))
