"""Stage: a published checkpoint and a LoRA adapter -> one GGUF of any type, in one pass.

In: `base` (FP8 or BF16, vision-language or text), `adapter` (PEFT) and, where the recipe asks for
one, `imatrix` for a quantized type. Out: model.gguf, and checks.json, what was found when it was
read back. Slabs of rows flow from the safetensors through dequantization, merge and ggml's
quantizer to their place in the file; nothing lies between. Every byte is what llama.cpp's converter
and, for a quantized type, llama-quantize make of the merged checkpoint. What the stream does not
cover is made in those steps, and said aloud. Nothing is called a GGUF before `gguf_check` has read
it back.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.checkpoint.gguf_check import Checked, check_gguf, check_tensors
from pipeline.checkpoint.gguf_layout import (
    Form,
    Source,
    Uncovered,
    make_converter,
    write_header,
)
from pipeline.checkpoint.gguf_logits import MAX_NMSE, check_logits
from pipeline.checkpoint.gguf_stream import MAX_WORKERS, covers, stream
from pipeline.checkpoint.imatrix_file import IMATRIX, read_imatrix
from pipeline.checkpoint.llama_source import read_shapes, run_tool
from pipeline.checkpoint.other_family import is_listed
from pipeline.checkpoint.pre_tokenizer import check_pre_tokenizer, known_splits
from pipeline.checkpoint.shards import write_checkpoint, write_json
from pipeline.checkpoint.weights import open_weights, write_small_files
from pipeline.gguf_types import CONVERTED, parse_override
from pipeline.log import say, step

GGUF = "model.gguf"
CHECKS = "checks.json"


@dataclass(frozen=True, kw_only=True)
class Options:
    type: str
    model_name: str
    tensor_types: tuple[str, ...]
    chat_template: str


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Write `base` with `adapter` merged in as a GGUF of the options' type and name."""
    imatrix = read_imatrix(inputs["imatrix"] / IMATRIX) if "imatrix" in inputs else None
    form = Form(
        type=options.type,
        model_name=options.model_name,
        overrides=tuple(
            parse_override(each, has_imatrix=imatrix is not None) for each in options.tensor_types
        ),
        imatrix=imatrix,
    )
    base = inputs["base"]
    weights = open_weights(base, inputs.get("adapter"))
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "model"
        small.mkdir()
        write_small_files(base, small, options.chat_template)
        check_pre_tokenizer(small)
        _write(Source(weights=weights, directory=small), form, out)
        with step("read the GGUF back"):
            checked = check_gguf(out / GGUF, small, options.type)
        prompts = 0
        # Of experts, rounding may choose others: their logits then differ without a fault.
        if options.type == "BF16" and is_listed(weights.config):
            with step("compare logits"):
                prompts = check_logits(out / GGUF, weights, small)
    _write_checks(out / CHECKS, options.type, checked, prompts)


def _write_checks(path: Path, file_type: str, checked: Checked, prompts: int) -> None:
    """Write what holds of the file; its measured distance, other on other CPUs, is in the log."""
    document = {
        "architecture": checked.architecture,
        "file_type": file_type,
        "logits": {"nmse_below": MAX_NMSE, "prompts": prompts} if prompts else None,
        "tensors": checked.tensors,
        "tokenizer": {
            "equal_texts": checked.texts,
            "known_differences": list(checked.differences),
        },
    }
    write_json(path, document)


def _write(source: Source, form: Form, out: Path) -> None:
    with step("metadata"):
        layout = write_header(source, form, out / GGUF)
    if not isinstance(layout, Uncovered) and not covers(layout):
        layout = Uncovered(why="the order of its rows reaches too far")
    if isinstance(layout, Uncovered):
        say(f"note: not streamed ({layout.why}); llama.cpp's own steps write the file instead")
        write_in_steps(source, form, out)
        return
    workers = min(len(os.sched_getaffinity(0)), MAX_WORKERS)
    with step(f"stream {len(layout.targets)} tensors as {form.type}, {workers} threads"):
        stream(layout, source.weights, out / GGUF, workers)


def write_in_steps(source: Source, form: Form, out: Path) -> None:
    """Write the file by llama.cpp's converter and llama-quantize, by way of a 16-bit checkpoint.

    What lies between takes about four times the parameters in bytes, under `out` for the while.
    """
    with tempfile.TemporaryDirectory(dir=out) as folder:
        model = Path(folder) / "model"
        model.mkdir()
        with step("write the 16-bit checkpoint"):
            _write_checkpoint(source, model)
        is_converted = form.type in CONVERTED
        converted = out / GGUF if is_converted else Path(folder) / GGUF
        with step("convert"), known_splits(model), torch.inference_mode():
            make_converter(model, form, converted).write()
        if not is_converted:
            with step(f"quantize to {form.type}"):
                _quantize(converted, form, out / GGUF)
                check_tensors(read_shapes(out / GGUF), read_shapes(converted))


def _write_checkpoint(source: Source, out: Path) -> None:
    for path in source.directory.iterdir():
        (out / path.name).symlink_to(path.resolve())
    write_checkpoint(out, source.weights.shapes, source.weights.read_rows)


def _quantize(converted: Path, form: Form, path: Path) -> None:
    asked = [f"{each.pattern}={each.type}" for each in form.overrides]
    options = [word for each in asked for word in ("--tensor-type", each)]
    if form.imatrix is None:
        run_tool("llama-quantize", *options, str(converted), str(path), form.type)
        return
    form.imatrix.check(read_shapes(converted))
    run_tool(
        *("llama-quantize", *options, "--imatrix", IMATRIX),
        *(str(converted.absolute()), str(path.absolute()), form.type),
        directory=form.imatrix.path.parent,
    )
