"""[evaluate] of a recipe: what the models are asked, and how answers are judged.

Each file of the user's own problems is a table [[evaluate.rows]]. Standard library alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.evaluate.grade import FORMS
from pipeline.evaluate.problems import Exam, make_exam_label, write_exam
from pipeline.gguf_types import REFERENCE
from pipeline.recipe.dataset import Dataset, is_raw_text
from pipeline.recipe.parsing import Problem
from pipeline.recipe.positions import Place
from pipeline.recipe.setting import setting
from pipeline.source_files import list_file

_ANSWER = (
    "How an answer is right: as the solution stands (exact), by its last number, by its last single"
    " capital letter (choice), or where the solution stands somewhere in it (contains)."
)


@dataclass(frozen=True, kw_only=True)
class ExamRows:
    source: str = setting("A file of problems of your own, one JSON object a line.")
    name: str = setting("What reports call it; rows-1, rows-2 and so on without.", "")
    problem: str = setting("Column of the problem.", "problem")
    solution: str = setting("Column of the solution.", "solution")
    domain: str = setting("Column whose text the scores are also counted by.", "domain")
    system: str = setting("System prompt that the problems are asked with.", "")
    answer: str = setting(_ANSWER, "exact", choices=tuple(FORMS))
    problems: int = setting("Problems asked, from the first on; 0 asks all.", 0, low=0)


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    problems: int = setting("Held-out problems asked; 0 asks none.", 400, low=0)
    answer: str = setting(_ANSWER, "exact", choices=tuple(FORMS))
    rows: tuple[ExamRows, ...] = setting(
        "Problems of your own that are asked besides, each file a table [[evaluate.rows]].",
        (),
        may_be_empty=True,
    )
    max_tokens: int = setting("Longest answer, tokens.", 2048, low=1)
    temperature: float = setting("Sampling temperature; 0 is greedy.", 0.0, low=0.0, high=2.0)
    seed: int = setting("Sampling seed.", 1, low=0)
    parallel: int = setting(
        "Problems asked side by side; with more than 1, batches and so some answers may vary.",
        1,
        low=1,
        high=256,
    )
    before_export: bool = setting(
        "Also ask the base and the distilled model before they are exported.", False
    )
    divergence_tokens: int = setting(
        "Answer tokens of held-out rows on which each quantized file is compared with the BF16 one:"
        " perplexity, KL divergence, flips; 0 compares none, 10,000 are a good measure.",
        0,
        low=0,
        high=10_000_000,
    )


def resolve_exams(evaluate: Evaluate, folder: Path) -> Evaluate:
    """Return the table with the paths of its files made absolute, and every file named."""
    rows = tuple(
        replace(each, source=str((folder / each.source).resolve()), name=_name(each, number))
        for number, each in enumerate(evaluate.rows, start=1)
    )
    return replace(evaluate, rows=rows)


def _name(rows: ExamRows, number: int) -> str:
    return rows.name or f"rows-{number}"


def find_evaluation_problems(
    tables: Mapping[str, Any], folder: Path, *, planning: bool
) -> list[Problem]:
    """Return what cannot be meant; while `planning`, the user's files need not be there."""
    evaluate: Evaluate = tables["evaluate"]
    problems = _find_held_out_problems(evaluate, tables["dataset"], folder)
    if evaluate.divergence_tokens and REFERENCE not in tables["gguf"].types:
        problems.append(
            Problem(
                at=("evaluate", "divergence_tokens"),
                value=evaluate.divergence_tokens,
                what=f"files are compared with {REFERENCE}, which is not in [gguf] types",
                of=(("gguf", "types"),),
            )
        )
    names = [_name(each, number) for number, each in enumerate(evaluate.rows, start=1)]
    for number, (rows, name) in enumerate(zip(evaluate.rows, names, strict=True)):
        place = ("evaluate", "rows", number)
        if name in names[:number]:
            what = f"two files are called {name}"
            problems.append(Problem(at=(*place, "name"), value=rows.name, what=what))
        if not planning and not (folder / rows.source).is_file():
            what = f"no file {folder / rows.source}"
            problems.append(Problem(at=(*place, "source"), value=rows.source, what=what))
    return problems


def _find_held_out_problems(evaluate: Evaluate, dataset: Dataset, folder: Path) -> list[Problem]:
    if evaluate.problems and is_raw_text(dataset, folder):
        what = "raw text asks nothing, so no answer can be graded: set it to 0"
        of: tuple[Place, ...] = (("dataset", "source"), ("dataset", "format"))
    elif evaluate.problems > dataset.held_out:
        what = f"more than [dataset] held_out, which is {dataset.held_out}"
        of = (("dataset", "held_out"),)
    else:
        return []
    return [Problem(at=("evaluate", "problems"), value=evaluate.problems, what=what, of=of)]


def list_exam_paths(evaluate: Evaluate) -> dict[str, Path]:
    """Return where each of the user's files lies, by the label that a stage finds it under."""
    return {
        make_exam_label(number): Path(each.source)
        for number, each in enumerate(evaluate.rows, start=1)
    }


def make_exams(evaluate: Evaluate, digests: Path) -> tuple[str, ...]:
    """Return what the stages are told of the files, whose digests are remembered in `digests`."""
    return tuple(
        write_exam(
            Exam(
                name=each.name,
                sha256=list_file(Path(each.source), digests),
                problem=each.problem,
                solution=each.solution,
                domain=each.domain,
                system=each.system,
                form=each.answer,
                problems=each.problems,
            )
        )
        for each in evaluate.rows
    )
