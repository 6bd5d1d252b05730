"""recipe.toml -> frozen values; strict, whole, with every error at once.

Each field stands here once: its type, default, allowed range and one line of documentation.
Nothing outside a recipe may change what an artifact is.
"""

import dataclasses
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.source import HUB
from pipeline.errors import UsageError
from pipeline.gguf_types import FILE_TYPES
from pipeline.recipe.contradictions import find_contradictions
from pipeline.recipe.dataset import DEMO, Dataset, resolve_sources
from pipeline.recipe.evaluate import Evaluate, resolve_exams
from pipeline.recipe.export import Export
from pipeline.recipe.parsing import Problem, did_you_mean, parse_table, sort_problems
from pipeline.recipe.positions import find_lines
from pipeline.recipe.processes import resolve_train
from pipeline.recipe.setting import setting as _setting
from pipeline.recipe.train import Train
from pipeline.serve.argv import CACHE_TYPES


@dataclass(frozen=True, kw_only=True)
class Base:
    source: str = _setting(
        '"demo" (made here), or the directory of a Hugging Face checkpoint, or hf://owner/name, one'
        " on the hub."
    )
    revision: str = _setting("Commit of a base on the hub, all its 40 digits.", "")


@dataclass(frozen=True, kw_only=True)
class Demo:
    seed: int = _setting("Seed of the demonstration's base model and problems.", 1, low=0)
    digits: int = _setting("Digits of each operand.", 4, low=2, high=8)
    hidden_size: int = _setting("Width of the model; a multiple of 256.", 256, low=256, high=1024)
    steps: int = _setting("Training steps of the base model.", 1200, low=1, high=100_000)
    rows: int = _setting("Teacher traces.", 4000, low=1, high=1_000_000)


@dataclass(frozen=True, kw_only=True)
class Gguf:
    types: tuple[str, ...] = _setting(
        "Quantization types, one file each.", ("Q4_K_M",), choices=tuple(FILE_TYPES)
    )
    tensor_types: tuple[str, ...] = _setting(
        'Types of tensors by pattern, like "attn_v=Q8_0" (llama-quantize\'s --tensor-type).',
        (),
        may_be_empty=True,
    )
    calibration: int = _setting(
        "Training rows that the quantizer's importance matrix is made from; 0 makes none.",
        0,
        low=0,
        high=1_000_000,
    )
    name: str = _setting("The model's name inside the file (general.name).", "distilled")


@dataclass(frozen=True, kw_only=True)
class Serve:
    type: str = _setting("The type that is served.", "Q4_K_M", choices=tuple(FILE_TYPES))
    accelerator: str = _setting(
        "What serves: NVIDIA GPUs, or the CPU, whose answers are the same on every host.",
        "cuda",
        choices=("cuda", "cpu"),
    )
    port: int = _setting("Port to listen on, at the loopback address.", 8080, low=1, high=65535)
    context: int = _setting("Context of one slot, tokens.", 8192, low=64)
    parallel: int = _setting("Requests served side by side.", 1, low=1, high=256)
    reasoning: str = _setting(
        "Thinking in `reasoning_content`, apart from the answer, or in the text as it was written.",
        "split",
        choices=("split", "text"),
    )
    cache_type: str = _setting(
        "What keys and values are kept in; q8_0 takes half of f16's memory.",
        "f16",
        choices=CACHE_TYPES,
    )
    prompt_cache_mib: int = _setting(
        "Memory for the prompts of earlier conversations, MiB; less where less is free.",
        2048,
        low=0,
    )
    metrics: bool = _setting("Show /metrics, for Prometheus, to who may ask for an answer.", True)

    @property
    def image(self) -> str:
        """The image that serves."""
        return "serve" if self.accelerator == "cpu" else f"serve-{self.accelerator}"


@dataclass(frozen=True, kw_only=True)
class Limits:
    memory_gb: float = _setting(
        "Memory of a container, GB (10^9 bytes); 0 sets no limit. No key depends on it.",
        0.0,
        low=0.0,
    )
    pids: int = _setting("Processes and threads of a container. No key depends on it.", 4096, low=1)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    name: str
    base: Base
    demo: Demo
    dataset: Dataset
    train: Train
    gguf: Gguf
    serve: Serve
    evaluate: Evaluate
    export: Export
    limits: Limits


TABLES: dict[str, Any] = {
    "base": Base,
    "demo": Demo,
    "dataset": Dataset,
    "train": Train,
    "gguf": Gguf,
    "serve": Serve,
    "evaluate": Evaluate,
    "export": Export,
    "limits": Limits,
}


def read_recipe(path: Path, *, planning: bool = False) -> Recipe:
    """Return the recipe in the file; while `planning`, its base and its rows need not be there.

    Raises UsageError when the file is missing, is not TOML, or says anything that cannot be meant;
    every such error is in the one message, with its line.
    """
    text = _read_text(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # As "... (at line 3, column 8)", or "(at end of document)".
        line = re.search(r"\(at line (\d+),", str(error))
        raise UsageError(
            "the recipe is not TOML",
            on=f"{path}:{line[1]}" if line else str(path),
            why=str(error),
            then="mend that line",
        ) from error
    problems: list[Problem] = []
    tables = _parse_tables(document, problems)
    wrong = {field for problem in problems for field in problem.fields}
    problems += [
        found
        for found in find_contradictions(tables, path.parent, planning=planning)
        if not found.fields & wrong
    ]
    if problems:
        raise _explain(problems, path, text)
    return _make_recipe(path, tables)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            "the recipe cannot be read",
            on=str(path),
            why=str(error),
            then="name one by --recipe FILE (for make: RECIPE=FILE), such as recipes/demo.toml",
        ) from error


def _parse_tables(document: dict[str, Any], problems: list[Problem]) -> dict[str, Any]:
    """Return the value of each table, after adding what is wrong to `problems`."""
    homes: dict[str, list[str]] = {}
    for name, table_type in TABLES.items():
        for field in dataclasses.fields(table_type):
            homes.setdefault(field.name, []).append(name)
    for name in document:
        if name not in TABLES:
            what = f": unknown table{did_you_mean(name, TABLES)}"
            problems.append(Problem(at=(name,), what=what))
    return {
        name: parse_table(table_type, document.get(name, {}), (name,), problems, homes)
        for name, table_type in TABLES.items()
    }


def _explain(problems: list[Problem], path: Path, text: str) -> UsageError:
    """Return the error of all problems, in the order of their lines."""
    lines = find_lines(text)
    told = [problem.tell(str(path), lines) for problem in sort_problems(problems, lines)]
    return UsageError(
        f"the recipe has {len(problems)} error{'s' if len(problems) > 1 else ''}",
        on=str(path),
        why="\n        ".join(told),
        then="mend the recipe; docs/recipe.md documents every field",
    )


def _make_recipe(path: Path, tables: dict[str, Any]) -> Recipe:
    """Return the recipe with its paths made absolute: they are relative to the recipe's folder."""
    source = tables["base"].source
    if source != DEMO and not source.startswith(HUB):
        absolute = str((path.parent / source).resolve())
        tables["base"] = dataclasses.replace(tables["base"], source=absolute)
    tables["dataset"] = resolve_sources(tables["dataset"], path.parent)
    tables["train"] = resolve_train(tables["train"], path.parent)
    tables["evaluate"] = resolve_exams(tables["evaluate"], path.parent)
    return Recipe(name=path.stem, **tables)
