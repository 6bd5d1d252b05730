"""[dataset] of a recipe -> what the stages `hub.dataset` and `data.rows` are told of its sources.

Digests of the user's files stand in the options, and so in the key, with their names below a
directory of the recipe's; where that lies, or what a single file is called, does not. Of the hub's
data sets their commit stands there. Standard library alone.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.source import HUB, File, Source, make_label, write_source
from pipeline.recipe.dataset import Dataset, Rows
from pipeline.source_files import list_file, list_row_files


@dataclass(frozen=True, kw_only=True)
class HubSplit:
    """A split of a data set on the hub: the options of the stage that fetches it."""

    repository: str
    revision: str
    subset: str
    split: str

    @property
    def artifact(self) -> str:
        """The name of the artifact that it becomes, one for all sources that read it.

        The commit is not in it: with another one, it is the same artifact that is built anew.
        """
        named = json.dumps([self.repository, self.subset, self.split])
        digest = hashlib.sha256(named.encode()).hexdigest()
        name = re.sub(r"[^A-Za-z0-9.]+", "-", self.repository.rpartition("/")[2])
        return f"hub-{name}-{digest[:8]}"


@dataclass(frozen=True, kw_only=True)
class RowSources:
    """The sources in the recipe's order, as texts. By the label under which the stage finds each:
    `paths`, where the user's own lie, and `fetched`, what the others are."""

    sources: tuple[str, ...]
    paths: Mapping[str, Path]
    fetched: Mapping[str, HubSplit]


def make_row_sources(dataset: Dataset, digests: Path) -> RowSources:
    """Return the sources with their files' digests, remembered in the file `digests`."""
    labelled = {make_label(number): rows for number, rows in enumerate(dataset.sources, start=1)}
    return RowSources(
        sources=tuple(
            write_source(_make_source(rows, label, digests)) for label, rows in labelled.items()
        ),
        paths={
            label: Path(rows.source) for label, rows in labelled.items() if not _is_on_hub(rows)
        },
        fetched=find_hub_splits(dataset),
    )


def make_absent_sources(dataset: Dataset) -> RowSources:
    """Return what is known of sources that are not here: those on the hub."""
    return RowSources(sources=(), paths={}, fetched=find_hub_splits(dataset))


def find_hub_splits(dataset: Dataset) -> dict[str, HubSplit]:
    """Return what is read of the hub, by the source's label."""
    return {
        make_label(number): _make_hub_split(rows)
        for number, rows in enumerate(dataset.sources, start=1)
        if _is_on_hub(rows)
    }


def list_row_paths(dataset: Dataset) -> list[Path]:
    """Return every file of the user's that rows are read from."""
    own = [rows for rows in dataset.sources if not _is_on_hub(rows)]
    return [_find_folder(rows) / name for rows in own for name in _list_names(rows)]


def _is_on_hub(rows: Rows) -> bool:
    return rows.source.startswith(HUB)


def _find_folder(rows: Rows) -> Path:
    source = Path(rows.source)
    return source if source.is_dir() else source.parent


def _list_names(rows: Rows) -> tuple[str, ...]:
    source = Path(rows.source)
    return list_row_files(source, rows.split) if source.is_dir() else (source.name,)


def _make_hub_split(rows: Rows) -> HubSplit:
    repository = rows.source.removeprefix(HUB)
    return HubSplit(
        repository=repository, revision=rows.revision, subset=rows.subset, split=rows.split
    )


def _make_source(rows: Rows, label: str, digests: Path) -> Source:
    values = {name: value for name, value in vars(rows).items() if name in _SHARED}
    if _is_on_hub(rows):
        return Source(hub=rows.source.removeprefix(HUB), **values)
    folder, is_file = _find_folder(rows), Path(rows.source).is_file()
    files = tuple(
        File(
            name=f"{label}{Path(name).suffix.lower()}" if is_file else name,
            sha256=list_file(folder / name, digests),
        )
        for name in _list_names(rows)
    )
    return Source(files=files, is_file=is_file, **values)


# What the stage reads of a source as the recipe says it.
_SHARED = (
    "split",
    "format",
    "columns",
    "rename",
    "prompt",
    "completion",
    "system",
    "domain",
    "keep",
    "weight",
)
