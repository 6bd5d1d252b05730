"""[dataset] of a recipe: where rows come from, how they are read, cleaned and split.

Each source of rows is one `Rows`: the first stands in [dataset] itself, each further one in a table
[[dataset.more]]. Standard library alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.data.column_template import parse_template
from pipeline.data.source import AUTO, FORMATS, HUB, READERS, TEMPLATE
from pipeline.data.style import SUPERVISE, THINKING, TOO_LONG
from pipeline.data.templates import BUILT_IN, CHECKPOINT
from pipeline.errors import UsageError
from pipeline.recipe.hub import find_commit_problems
from pipeline.recipe.setting import setting
from pipeline.recipe.template import find_template_problem, resolve_template
from pipeline.source_files import list_row_files

DEMO = "demo"

_COLUMNS = ("problem", "thinking", "solution")


@dataclass(frozen=True, kw_only=True)
class Rows:
    source: str = setting(
        '"demo", or a file (.jsonl .json .csv .tsv .parquet .txt), or a directory of such files,'
        " or one that datasets' save_to_disk wrote, or hf://owner/name, a data set of the hub."
    )
    revision: str = setting("Commit of a source on the hub, all its 40 digits.", "")
    subset: str = setting("Subset (configuration) of a source on the hub that has several.", "")
    split: str = setting(
        "Split to read, where a directory has several: files named by it, or a saved split.",
        "train",
    )
    format: str = setting(
        "How a row is read; auto goes by the columns of the first one.", AUTO, choices=FORMATS
    )
    columns: tuple[str, ...] = setting(
        "Names of the columns that hold the problem, the thinking and the solution.", _COLUMNS
    )
    rename: tuple[str, ...] = setting(
        'Other names of columns, "theirs=ours", like "dialog=messages".', (), may_be_empty=True
    )
    prompt: str = setting(
        "Template of the user's turn: {column}, [[optional part]]; with it, completion.", ""
    )
    completion: str = setting("Template of the assistant's turn.", "")
    system: str = setting("System prompt of the rows that have none of their own.", "")
    domain: str = setting("Column whose text the report counts rows by.", "domain")
    keep: tuple[str, ...] = setting(
        'Rows to keep by column, like "language=en|de" or "licence!=unknown".',
        (),
        may_be_empty=True,
    )
    weight: float = setting(
        "How often each training row is taken: 2 is twice, 0.5 every other one.",
        1.0,
        low=0.001,
        high=100.0,
    )


@dataclass(frozen=True, kw_only=True)
class Dataset(Rows):
    more: tuple[Rows, ...] = setting(
        "Further sources, each a table [[dataset.more]] with the fields above.",
        (),
        may_be_empty=True,
    )
    held_out: int = setting("Problems kept out of training, to judge by.", 400, low=1)
    seed: int = setting("Seed of the split and of the order of the training rows.", 1, low=0)
    max_characters: int = setting(
        "Longest row, characters; longer ones are dropped; 0 sets no limit.", 0, low=0
    )
    require_thinking: bool = setting("Drop rows whose last answer shows no thinking.", False)
    near_duplicates: float = setting(
        "Rows whose texts are as similar are dropped, all but the first, and prompts as similar are"
        " never split between training and held-out rows; Jaccard similarity of five-word runs,"
        " 0 looks for exact ones alone.",
        0.8,
        low=0.0,
        high=1.0,
    )
    contamination_words: int = setting(
        "Training rows that share as many words in sequence with a held-out problem are dropped;"
        " 0 looks for none.",
        13,
        low=0,
        high=1000,
    )
    conversation_extension: int = setting(
        "Single-turn training rows that are joined to one conversation; 1 joins none.",
        1,
        low=1,
        high=100,
    )
    template: str = setting(
        f"Chat template, in which rows are written and the model is served: {CHECKPOINT} (its own),"
        f" {', '.join(BUILT_IN)}, or a path of a Jinja file.",
        CHECKPOINT,
    )
    sequence_length: int = setting("Longest row, tokens.", 2048, low=8)
    too_long: str = setting(
        "Longer rows: drop, or truncate (oldest turns, then the question's beginning). Longer raw"
        " text becomes several rows.",
        TOO_LONG[0],
        choices=TOO_LONG,
    )
    supervise: str = setting(
        "Answers of a conversation that are learnt: every one, or the last.",
        SUPERVISE[0],
        choices=SUPERVISE,
    )
    thinking: str = setting(
        "How thinking is written: text (<think>..</think>), or as the chat template writes chunks"
        " of it ([THINK]..[/THINK] of Mistral) or the field reasoning_content.",
        THINKING[0],
        choices=THINKING,
    )

    @property
    def sources(self) -> tuple[Rows, ...]:
        """Every source, in the order of the recipe."""
        return (self, *self.more)


def resolve_sources(dataset: Dataset, folder: Path) -> Dataset:
    """Return the table with the paths of its sources and of its template made absolute."""

    def resolve(source: str) -> str:
        return source if _is_elsewhere(source) else str((folder / source).resolve())

    more = tuple(replace(each, source=resolve(each.source)) for each in dataset.more)
    template = resolve_template(dataset.template, folder)
    return replace(dataset, source=resolve(dataset.source), more=more, template=template)


def find_dataset_contradictions(dataset: Dataset, folder: Path) -> list[str]:
    """Return what each field may say but the table as a whole cannot."""
    problems = []
    if dataset.source == DEMO and dataset.more:
        problems.append("[[dataset.more]]: the demonstration has no further sources")
    if 0 < dataset.near_duplicates < 0.5:
        # The index's bands find hardly anything there, and what has half in common is no copy.
        problems.append("[dataset] near_duplicates: must be 0, or 0.5 to 1")
    if problem := find_template_problem(dataset.template, folder):
        problems.append(f"[dataset] template: {problem}")
    commits = {(rows.source, rows.subset, rows.split): rows.revision for rows in dataset.sources}
    labels = ["[dataset]"] + ["[[dataset.more]]"] * len(dataset.more)
    for label, rows in zip(labels, dataset.sources, strict=True):
        problems += [f"{label} {problem}" for problem in _find_row_problems(rows)]
        found = find_commit_problems(rows.source, rows.revision, subset=rows.subset)
        problems += [f"{label} {problem}" for problem in found]
        if rows.revision != commits[rows.source, rows.subset, rows.split]:
            problems.append(f"{label} revision: {rows.source} is read at two commits")
        if not (rows.source == DEMO and label == "[dataset]"):
            problems += [f"{label} source: {each}" for each in _find_path_problems(rows, folder)]
    return problems


def is_raw_text(dataset: Dataset, folder: Path) -> bool:
    """Return whether the recipe itself says that no row is a question with an answer."""
    return all(_holds_raw_text(rows, folder) for rows in dataset.sources)


def _holds_raw_text(rows: Rows, folder: Path) -> bool:
    path = folder / rows.source
    names = list_row_files(path, rows.split) if path.is_dir() else (rows.source,)
    has_texts = {Path(name).suffix.lower() for name in names} == {".txt"}
    return rows.format == "text" or (rows.format == AUTO and has_texts and not rows.prompt)


def _is_elsewhere(source: str) -> bool:
    return source == DEMO or source.startswith(HUB)


def _find_row_problems(rows: Rows) -> list[str]:
    problems = []
    if len(rows.columns) != 3:
        problems.append("columns: exactly three names: problem, thinking, solution")
    if bool(rows.prompt) != bool(rows.completion):
        problems.append("prompt: it and completion need each other")
    if rows.prompt and rows.format not in (AUTO, TEMPLATE):
        problems.append(f"prompt: templates are read by format = {TEMPLATE!r}, not {rows.format!r}")
    if rows.format == TEMPLATE and not rows.prompt:
        problems.append(f"format: {TEMPLATE!r} needs prompt and completion")
    for name, template in (("prompt", rows.prompt), ("completion", rows.completion)):
        try:
            parse_template(template or "{none}")
        except UsageError as error:
            problems.append(f"{name}: {error.on}: {error.why}")
    return (
        problems
        + _find_pair_problems("rename", rows.rename)
        + _find_pair_problems("keep", rows.keep)
    )


def _find_pair_problems(name: str, pairs: Sequence[str]) -> list[str]:
    return [
        f'{name}: {pair!r} must be "column=..."'
        for pair in pairs
        if not pair.partition("=")[0].rstrip("!").strip() or not pair.partition("=")[2]
    ]


def _find_path_problems(rows: Rows, folder: Path) -> list[str]:
    if rows.source.startswith(HUB):
        return []
    path = folder / rows.source
    if not path.exists():
        return [f"no file {path}"]
    if path.is_file() and path.suffix.lower() not in READERS:
        return [f"{path.name} must end in one of {', '.join(READERS)}"]
    if path.is_dir() and not list_row_files(path, rows.split):
        return [f"no file in {path} ends in one of {', '.join(READERS)}"]
    return []
