"""Stage: one split of a data set on the Hugging Face hub, at one commit -> its files.

In: nothing but the hub. Out: `files/`, the split's files and the repository's card under their
names there; and hub.json, which says how `datasets` reads them, so that it does so again without
the hub (data/hub.py). What stays true: `datasets` itself says which files a split is and what they
are, each is the commit's, and no code of the repository runs. What a killed run has fetched lies in
the work area, and is not fetched again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pipeline.data.hub import DOCUMENT, FILES
from pipeline.errors import StageError
from pipeline.hub.files import Commit, explained, fetch_files, list_files, require_access

CARD = "README.md"
# Of what `datasets` knows of a subset, what says nothing of how a file is read, and the columns.
_APART = {"name", "version", "description", "data_dir", "data_files", "features"}


@dataclass(frozen=True, kw_only=True)
class Options:
    repository: str
    revision: str
    subset: str
    split: str


def run(inputs: Mapping[str, Path], options: Options, out: Path, work: Path) -> None:
    """Write `files/` and hub.json.

    Raises StageError when the hub cannot be asked or refuses, when it has no such repository,
    commit, subset or split, and when a file is not the commit's.
    """
    commit = Commit(kind="dataset", repository=options.repository, revision=options.revision)
    require_access(commit)
    builder = _make_builder(commit, options)
    names = _list_names(builder, commit, options)
    files = list_files(commit, [*names, CARD])
    if missing := set(names) - {file.path for file in files}:
        raise _unreadable(commit, f"the commit has no file {min(missing)}")
    fetch_files(commit, files, work=work, out=out / FILES)
    _write_document(out / DOCUMENT, vars(options) | {"files": names}, builder, commit)


def _write_document(path: Path, told: dict[str, Any], builder: Any, commit: Commit) -> None:
    """Write which files the split is, and how they are read."""
    config, features = builder.config, builder.info.features
    usual = type(config)()
    names = {field.name for field in fields(config)} - _APART
    document = told | {
        "reader": builder.name,
        "settings": {
            name: getattr(config, name)
            for name in sorted(names)
            if getattr(config, name) != getattr(usual, name)
        },
        "features": features.to_dict() if features is not None else None,
    }
    try:
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    except (TypeError, ValueError) as error:
        raise _unreadable(commit, f"a setting of its card is no JSON: {error}") from None
    path.write_text(text, encoding="utf-8")


def _make_builder(commit: Commit, options: Options) -> Any:
    """Return what `datasets` makes of the repository: each split's files, its columns."""
    import datasets

    try:
        with explained(commit):
            return datasets.load_dataset_builder(
                options.repository, options.subset or None, revision=options.revision
            )
    except (datasets.exceptions.DatasetsError, OSError, ValueError, RuntimeError) as error:
        raise _unreadable(commit, f"{type(error).__name__}: {error}") from None


def _list_names(builder: Any, commit: Commit, options: Options) -> list[str]:
    """Return the names of the split's files, in the order in which they are read."""
    splits = {str(split): list(found) for split, found in (builder.config.data_files or {}).items()}
    if options.split not in splits:
        raise StageError(
            f"the hub's data set has no split {options.split!r}",
            on=str(commit),
            why=f"its splits are: {', '.join(splits) or 'none'}",
            then="set split in the recipe",
        )
    start = f"hf://datasets/{options.repository}@{options.revision}/"
    found = splits[options.split]
    if foreign := [each for each in found if not each.startswith(start)]:
        raise _unreadable(commit, f"{foreign[0]} is no file of the repository")
    return [each.removeprefix(start) for each in found]


def _unreadable(commit: Commit, why: str) -> StageError:
    return StageError(
        "the hub's data set cannot be read",
        on=str(commit),
        why=why,
        then="correct its name, subset and split in the recipe; or download it and name its"
        " directory there",
    )
