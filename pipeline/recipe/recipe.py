"""recipe.toml -> frozen values; strict, whole, with every error at once.

Each field stands here once: its type, default, allowed range and one line of documentation.
Nothing outside a recipe may change what an artifact is.
"""

import dataclasses
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.source import HUB
from pipeline.errors import UsageError
from pipeline.gguf_types import FILE_TYPES, NEED_IMATRIX, parse_override
from pipeline.recipe.dataset import (
    DEMO,
    Dataset,
    find_dataset_contradictions,
    is_raw_text,
    resolve_sources,
)
from pipeline.recipe.hub import find_commit_problems
from pipeline.recipe.parsing import did_you_mean, find_line, parse_table
from pipeline.recipe.setting import setting as _setting
from pipeline.recipe.train import Train


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

    @property
    def image(self) -> str:
        """The image that serves."""
        return "serve" if self.accelerator == "cpu" else f"serve-{self.accelerator}"


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    problems: int = _setting("Held-out problems asked; 0 asks none.", 400, low=0)
    max_tokens: int = _setting("Longest answer, tokens.", 2048, low=1)
    temperature: float = _setting("Sampling temperature; 0 is greedy.", 0.0, low=0.0, high=2.0)
    seed: int = _setting("Sampling seed.", 1, low=0)
    parallel: int = _setting(
        "Problems asked side by side; with more than 1, batches and so some answers may vary.",
        1,
        low=1,
        high=256,
    )
    before_export: bool = _setting(
        "Also ask the base and the distilled model before they are exported.", False
    )


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
    limits: Limits


TABLES: dict[str, Any] = {
    "base": Base,
    "demo": Demo,
    "dataset": Dataset,
    "train": Train,
    "gguf": Gguf,
    "serve": Serve,
    "evaluate": Evaluate,
    "limits": Limits,
}


def read_recipe(path: Path) -> Recipe:
    """Return the recipe in the file.

    Raises UsageError when the file is missing, is not TOML, or says anything that cannot be meant;
    every such error is in the one message, with its line.
    """
    text = _read_text(path)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            "the recipe is not TOML", on=str(path), why=str(error), then="mend that line"
        ) from error
    problems: list[str] = []
    values = {
        name: parse_table(table_type, document.get(name, {}), f"[{name}]", text, problems)
        for name, table_type in TABLES.items()
    }
    for name in document:
        if name not in TABLES:
            line = find_line(text, "", name)
            problems.append(f"line {line}: unknown table [{name}]{did_you_mean(name, TABLES)}")
    if not problems:
        problems += _find_contradictions(values, path)
    if problems:
        raise UsageError(
            f"the recipe has {len(problems)} error{'s' if len(problems) > 1 else ''}",
            on=str(path),
            why="\n        ".join(problems),
            then="mend the recipe; recipes/reference.toml documents every field",
        )
    return _make_recipe(path, values)


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


def _make_recipe(path: Path, values: dict[str, Any]) -> Recipe:
    """Return the recipe with its paths made absolute: they are relative to the recipe's folder."""
    if values["base"].source != DEMO and not values["base"].source.startswith(HUB):
        source = str((path.parent / values["base"].source).resolve())
        values["base"] = dataclasses.replace(values["base"], source=source)
    values["dataset"] = resolve_sources(values["dataset"], path.parent)
    return Recipe(name=path.stem, **values)


def _find_contradictions(values: dict[str, Any], path: Path) -> list[str]:
    """Return what each field may say but the recipe as a whole cannot."""
    problems = []
    base, dataset, demo = values["base"], values["dataset"], values["demo"]
    if demo.hidden_size % 256:
        problems.append("[demo] hidden_size: must be a multiple of 256, or K-quants do not apply")
    problems += _find_evaluation_problems(values["evaluate"], dataset, path.parent)
    if values["serve"].type not in values["gguf"].types:
        problems.append(f"[serve] type: {values['serve'].type} is not in [gguf] types")
    problems += _find_gguf_contradictions(values["gguf"])
    problems += find_dataset_contradictions(dataset, path.parent)
    found = find_commit_problems(base.source, base.revision)
    problems += [f"[base] {problem}" for problem in found]
    is_here = base.source != DEMO and not base.source.startswith(HUB)
    if is_here and not (path.parent / base.source).is_dir():
        problems.append(f"[base] source: no directory {path.parent / base.source}")
    return problems


def _find_evaluation_problems(evaluate: Evaluate, dataset: Dataset, folder: Path) -> list[str]:
    if evaluate.problems and is_raw_text(dataset, folder):
        return ["[evaluate] problems: raw text asks nothing, so no answer can be graded: set it 0"]
    if evaluate.problems > dataset.held_out:
        return ["[evaluate] problems: more than [dataset] held_out"]
    return []


def _find_gguf_contradictions(gguf: Gguf) -> list[str]:
    has_imatrix = gguf.calibration > 0
    problems = [
        f"[gguf] types: {each} is garbage without an importance matrix: set [gguf] calibration"
        for each in gguf.types
        if each in NEED_IMATRIX and not has_imatrix
    ]
    for each in gguf.tensor_types:
        try:
            parse_override(each, has_imatrix=has_imatrix)
        except UsageError as error:
            problems.append(f"[gguf] tensor_types: {each!r}: {error.why}")
    return problems
