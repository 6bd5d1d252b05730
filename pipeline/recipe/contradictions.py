"""What each field of a recipe may say but the recipe as a whole cannot.

Every check is made, whatever the others found; who reads the recipe leaves out those that speak of
a field that is wrong by itself.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.data.source import HUB
from pipeline.errors import UsageError
from pipeline.gguf_types import NEED_IMATRIX, parse_override
from pipeline.recipe.dataset import DEMO, Dataset, Rows, find_dataset_contradictions
from pipeline.recipe.evaluate import find_evaluation_problems
from pipeline.recipe.export import find_export_problems
from pipeline.recipe.hub import find_commit_problems
from pipeline.recipe.parsing import Problem
from pipeline.recipe.positions import Place
from pipeline.recipe.train import find_train_contradictions

_K_QUANT_BLOCK = 256
_SAID = re.compile(r"\[+[\w.]+\]+(?: (?P<keys>\w+(?:, \w+)*))?: (?P<what>.*)", re.DOTALL)
# Fields of a source of rows that only mean something together.
_TEMPLATED = ("prompt", "completion", "format")


def find_contradictions(
    tables: Mapping[str, Any], folder: Path, *, planning: bool
) -> list[Problem]:
    """Return what cannot be meant; paths are relative to `folder`.

    While `planning`, the base, the rows and the user's own problems need not be there.
    """
    return [
        *_find_between_tables(tables),
        *find_evaluation_problems(tables, folder, planning=planning),
        *_find_gguf_problems(tables["gguf"]),
        *find_export_problems(tables["export"]),
        *(
            place_problem(said, ("train",), tables["train"])
            for said in find_train_contradictions(tables["train"], folder)
        ),
        *_find_dataset_problems(tables["dataset"], folder, planning=planning),
        *_find_base_problems(tables, folder, planning=planning),
    ]


def _find_between_tables(tables: Mapping[str, Any]) -> list[Problem]:
    demo, gguf = tables["demo"], tables["gguf"]
    serve = tables["serve"]
    problems = []
    if demo.hidden_size % _K_QUANT_BLOCK:
        problems.append(
            Problem(
                at=("demo", "hidden_size"),
                value=demo.hidden_size,
                what=f"must be a multiple of {_K_QUANT_BLOCK}, the block of the K-quants",
            )
        )
    if serve.type not in gguf.types:
        problems.append(
            Problem(
                at=("serve", "type"),
                value=serve.type,
                what=f"{serve.type} is not in [gguf] types: {', '.join(gguf.types)}",
                of=(("gguf", "types"),),
            )
        )
    return problems


def _find_gguf_problems(gguf: Any) -> list[Problem]:
    has_imatrix = gguf.calibration > 0
    calibration = (("gguf", "calibration"),)
    problems = [
        Problem(
            at=("gguf", "types", number),
            value=list(gguf.types),
            what=f"{each} is garbage without an importance matrix: set [gguf] calibration",
            of=calibration,
        )
        for number, each in enumerate(gguf.types)
        if each in NEED_IMATRIX and not has_imatrix
    ]
    for number, each in enumerate(gguf.tensor_types):
        try:
            parse_override(each, has_imatrix=has_imatrix)
        except UsageError as error:
            at = ("gguf", "tensor_types", number)
            problems.append(Problem(at=at, value=each, what=error.why, of=calibration))
    return problems


def _find_dataset_problems(dataset: Dataset, folder: Path, *, planning: bool) -> list[Problem]:
    """Return the contradictions of [dataset]; those of one of its sources at its place."""
    told = Counter(find_dataset_contradictions(dataset, folder))
    if not told:
        return []
    problems = []
    for place, rows, alone in _list_sources(dataset):
        is_further = place != ("dataset",)
        for said in find_dataset_contradictions(alone, folder):
            if told[said] and said.startswith("[[") == is_further:
                told[said] -= 1
                problems.append(place_problem(said, place, rows))
    # What is wrong between sources.
    problems += [place_problem(said, ("dataset", "more"), dataset.more) for said in +told]
    if planning:
        problems = [each for each in problems if not _is_absent_source(each, folder)]
    return problems


def _list_sources(dataset: Dataset) -> Iterator[tuple[Place, Rows, Dataset]]:
    """Yield the place of each source, the source, and a table with it alone."""
    yield ("dataset",), dataset, replace(dataset, more=())
    for number, rows in enumerate(dataset.more):
        yield ("dataset", "more", number), rows, replace(dataset, source=DEMO, more=(rows,))


def _is_absent_source(problem: Problem, folder: Path) -> bool:
    """Whether the problem is that of a source of rows that is named well and is not here."""
    if problem.at[-1] != "source":
        return False
    source = str(problem.value)
    return not source.startswith(HUB) and not (folder / source).exists()


def place_problem(said: str, table: Place, values: Any) -> Problem:
    """Return `[table] key: what`, or `[table] key, key: what`, as a problem of the table at that
    place, whose value is `values`."""
    match = _SAID.fullmatch(said)
    assert match is not None, said
    keys = (match["keys"] or "").split(", ")
    if not hasattr(values, keys[0]):
        what = f"{match['keys']}: {match['what']}" if match["keys"] else match["what"]
        return Problem(at=table, what=f": {what}")
    others = {*keys[1:], *(_TEMPLATED if keys[0] in _TEMPLATED else ())} - {keys[0]}
    return Problem(
        at=(*table, keys[0]),
        value=getattr(values, keys[0]),
        what=match["what"],
        of=tuple((*table, each) for each in sorted(others)),
    )


def _find_base_problems(
    tables: Mapping[str, Any], folder: Path, *, planning: bool
) -> list[Problem]:
    base = tables["base"]
    source = base.source
    found = find_commit_problems(source, base.revision)
    if found or source == DEMO:
        # The demonstration's rows are short and its types fit, whatever the recipe allows.
        return [place_problem(f"[base] {said}", ("base",), base) for said in found]
    if not source.startswith(HUB):
        directory = (folder / source).resolve()
        if not directory.is_dir() and not planning:
            return [
                Problem(at=("base", "source"), value=source, what=f"no directory {folder / source}")
            ]
        source = str(directory)
    # Only a base of the user's needs it.
    from pipeline.recipe.base_check import find_base_problems

    return find_base_problems(tables, source)
