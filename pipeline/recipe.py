"""recipe.toml -> frozen values; strict, whole, with every error at once.

Each field stands here once: its type, default, allowed range and one line of documentation.
`recipes/reference.toml` is written from this file (`python -m pipeline.recipe`) and a test holds
the two together. Nothing outside a recipe may change what an artifact is.
"""

import dataclasses
import re
import sys
import tomllib
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.gguf_types import FILE_TYPES, NEED_IMATRIX, parse_override

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
DEMO = "demo"


def _setting(
    doc: str,
    default: Any = dataclasses.MISSING,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    may_be_empty: bool = False,
) -> Any:
    metadata = {"doc": doc, "low": low, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata=metadata | {"may_be_empty": may_be_empty})


@dataclass(frozen=True, kw_only=True)
class Base:
    source: str = _setting('"demo" (made here), or the directory of a Hugging Face checkpoint.')


@dataclass(frozen=True, kw_only=True)
class Demo:
    seed: int = _setting("Seed of the demonstration's base model and problems.", 1, low=0)
    digits: int = _setting("Digits of each operand.", 4, low=2, high=8)
    hidden_size: int = _setting("Width of the model; a multiple of 256.", 256, low=256, high=1024)
    steps: int = _setting("Training steps of the base model.", 1200, low=1, high=100_000)
    rows: int = _setting("Teacher traces.", 4000, low=1, high=1_000_000)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    source: str = _setting('"demo", or a JSONL file, one row a line.')
    columns: tuple[str, ...] = _setting(
        "Names of the columns that hold the problem, the thinking and the solution.",
        ("problem", "thinking", "solution"),
    )
    held_out: int = _setting("Problems kept out of training, to judge by.", 400, low=1)
    seed: int = _setting("Seed of the split into training and held-out rows.", 1, low=0)
    sequence_length: int = _setting("Longest row, tokens; longer ones are dropped.", 2048, low=8)


@dataclass(frozen=True, kw_only=True)
class Train:
    method: str = _setting(
        "lora (16-bit base) or qlora (NF4 4-bit base).", "qlora", choices=("lora", "qlora")
    )
    rank: int = _setting("LoRA rank r.", 16, low=1, high=1024)
    alpha: float = _setting("LoRA alpha; the update is scaled by alpha / rank.", 16.0, low=0.0)
    dropout: float = _setting("LoRA dropout.", 0.0, low=0.0, high=0.9)
    target_modules: tuple[str, ...] = _setting(
        "Projections that get an adapter.", PROJECTIONS, choices=PROJECTIONS
    )
    learning_rate: float = _setting("Peak learning rate of AdamW.", 1e-4, low=0.0, high=1.0)
    warmup_steps: int = _setting("Steps of linear warm-up.", 50, low=0)
    schedule: str = _setting(
        "Shape of the learning rate after warm-up.",
        "cosine",
        choices=("cosine", "linear", "constant_with_warmup"),
    )
    weight_decay: float = _setting("Weight decay of AdamW.", 0.0, low=0.0, high=1.0)
    batch_size: int = _setting("Rows per device and micro-step.", 1, low=1)
    gradient_accumulation: int = _setting("Micro-steps per optimizer step.", 4, low=1)
    epochs: float = _setting("Passes over the rows, when max_steps is 0.", 3.0, low=0.0)
    max_steps: int = _setting("Optimizer steps; 0 counts by epochs.", 0, low=0)
    max_grad_norm: float = _setting("Gradients are clipped to this norm.", 1.0, low=0.0)
    seed: int = _setting("Seed of the adapter's start and of the row order.", 1, low=0)
    eval_rows: int = _setting("Held-out rows whose loss is taken before and after.", 64, low=1)
    accelerator: str = _setting(
        "What trains: NVIDIA GPUs, or the CPU, which is for small models.",
        "cuda",
        choices=("cuda", "cpu"),
    )
    cpu_threads: int = _setting(
        "Threads of every stage that computes on the CPU; the bytes may depend on it.", 2, low=1
    )

    @property
    def image(self) -> str:
        """The image that trains."""
        return "train" if self.accelerator == "cpu" else f"train-{self.accelerator}"


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
    problems: int = _setting("Held-out problems asked.", 400, low=1)
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


_TABLES: dict[str, Any] = {
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
        name: _parse_table(table_type, document.get(name, {}), f"[{name}]", text, problems)
        for name, table_type in _TABLES.items()
    }
    for name in document:
        if name not in _TABLES:
            line = _find_line(text, "", name)
            problems.append(f"line {line}: unknown table [{name}]{_did_you_mean(name, _TABLES)}")
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
    for table in ("base", "dataset"):
        if values[table].source != DEMO:
            source = str((path.parent / values[table].source).resolve())
            values[table] = dataclasses.replace(values[table], source=source)
    return Recipe(name=path.stem, **values)


def _find_line(text: str, table: str, key: str) -> int:
    """Return the 1-based line where the key (or, without a table, the table) is written; else 1."""
    wanted = rf"\s*\[\s*{re.escape(key)}\s*[].]|\s*{re.escape(key)}\s*[=.]"
    inside = table == ""
    for number, line in enumerate(text.splitlines(), start=1):
        if table and line.strip().startswith("["):
            inside = line.strip().startswith(table)
        elif inside and re.match(wanted, line):
            return number
        if not table and re.match(wanted, line):
            return number
    return 1


def _did_you_mean(name: str, known: typing.Iterable[str]) -> str:
    import difflib  # only a mistake needs it

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else f" (known: {', '.join(known)})"


def _parse_table(
    table_type: Any, raw: Any, label: str, text: str, problems: list[str]
) -> object | None:
    """Return the table's value, or None after adding what is wrong to `problems`."""
    if not isinstance(raw, dict):
        problems.append(f"{label} must be a table, not {raw!r}")
        return None
    fields = {field.name: field for field in dataclasses.fields(table_type)}
    hints = typing.get_type_hints(table_type)
    before = len(problems)
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in fields:
            problem = f": unknown key{_did_you_mean(key, fields)}"
        else:
            problem, values[key] = _parse_value(value, hints[key], fields[key].metadata)
            problem = problem and f" = {value!r}: {problem}"
        if problem:
            problems.append(f"line {_find_line(text, label, key)}: {label} {key}{problem}")
    for key, field in fields.items():
        if field.default is dataclasses.MISSING and key not in raw:
            problems.append(f"{label} {key} is missing: {field.metadata['doc']}")
    return table_type(**values) if len(problems) == before else None


def _parse_value(
    value: Any, hint: Any, limits: types.MappingProxyType[Any, Any]
) -> tuple[str, Any]:
    """Return what is wrong with the value ("" when nothing is) and the value in its own type."""
    if hint is float and type(value) is int:
        value = float(value)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            return "must be a list of strings", value
        if not (value or limits["may_be_empty"]) or len(set(value)) != len(value):
            return "must be non-empty and without repeats", value
        wrong = [item for item in value if limits["choices"] and item not in limits["choices"]]
        return _explain_item(wrong[0], limits["choices"]) if wrong else "", tuple(value)
    if type(value) is not hint:
        return f"must be {hint.__name__}, not {type(value).__name__}", value
    if limits["choices"] and value not in limits["choices"]:
        return f"must be one of {', '.join(limits['choices'])}", value
    too_low = limits["low"] is not None and not value >= limits["low"]
    too_high = limits["high"] is not None and not value <= limits["high"]
    if too_low or too_high or value in (float("inf"),):
        return f"must be in {limits['low']} to {limits['high'] or 'any size'}", value
    return "", value


def _explain_item(item: str, choices: tuple[str, ...]) -> str:
    return f"unknown {item}{_did_you_mean(item, choices)}"


def _find_contradictions(values: dict[str, Any], path: Path) -> list[str]:
    """Return what each field may say but the recipe as a whole cannot."""
    problems = []
    base, dataset, demo = values["base"], values["dataset"], values["demo"]
    if len(dataset.columns) != 3:
        problems.append("[dataset] columns: exactly three names: problem, thinking, solution")
    if demo.hidden_size % 256:
        problems.append("[demo] hidden_size: must be a multiple of 256, or K-quants do not apply")
    if values["evaluate"].problems > dataset.held_out:
        problems.append("[evaluate] problems: more than [dataset] held_out")
    if values["serve"].type not in values["gguf"].types:
        problems.append(f"[serve] type: {values['serve'].type} is not in [gguf] types")
    problems += _find_gguf_contradictions(values["gguf"])
    if base.source.startswith("hf://") or dataset.source.startswith("hf://"):
        problems.append("hf:// sources are not read yet: download first, then name the path")
        return problems
    if base.source != DEMO and not (path.parent / base.source).is_dir():
        problems.append(f"[base] source: no directory {path.parent / base.source}")
    if dataset.source != DEMO and not (path.parent / dataset.source).is_file():
        problems.append(f"[dataset] source: no file {path.parent / dataset.source}")
    return problems


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


def make_reference() -> str:
    """Return recipes/reference.toml: every field with its default, range and meaning."""
    lines = [
        "# Every field of a recipe, with its default. Written by `make reference`; do not edit.",
    ]
    for name, table_type in _TABLES.items():
        lines += ["", f"[{name}]"]
        for field in dataclasses.fields(table_type):
            lines += ["# " + _describe_field(field), _show_default(field)]
    return "\n".join(lines) + "\n"


def _describe_field(field: dataclasses.Field[Any]) -> str:
    limits = field.metadata
    text = str(limits["doc"])
    if limits["choices"]:
        text += f" One of: {', '.join(limits['choices'])}."
    if limits["low"] is not None:
        text += f" From {limits['low']}" + (f" to {limits['high']}." if limits["high"] else ".")
    return text + (" Required." if field.default is dataclasses.MISSING else "")


def _show_default(field: dataclasses.Field[Any]) -> str:
    value = DEMO if field.default is dataclasses.MISSING else field.default
    if isinstance(value, bool):
        return f"{field.name} = {str(value).lower()}"
    if isinstance(value, tuple):
        quoted = ", ".join(f'"{item}"' for item in value)
        return f"{field.name} = [{quoted}]"
    return f"{field.name} = " + (f'"{value}"' if isinstance(value, str) else repr(value))


if __name__ == "__main__":
    sys.stdout.write(make_reference())
