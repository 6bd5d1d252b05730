"""The plan for people: tables of artifacts, files, memory and GPUs, and what follows from them."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.report.colour import paint, paint_table
from pipeline.report.table import format_bytes, format_table

_MIB, _GIB = 1 << 20, 1 << 30
_LINE = 100
_STATES = {"cached": "green", "build": "yellow"}
_ANSWERS = {"yes": "green", "no": "red"}
# The parts of memory in words.
_PARTS = {
    "weights_4bit": "weights, 4-bit (NF4)",
    "scales": "scales of the 4-bit weights",
    "weights_16bit": "weights, 16-bit",
    "optimizer": "optimizer state",
    "working_set": "one layer, or the logits",
    "context": "CUDA context",
    "process": "Python and its libraries",
    "kv_cache": "key-value cache",
    "compute": "buffers to compute in",
}
_MEMORY = {"cuda": "GPU memory", "cpu": "memory"}


def format_plan(plan: Mapping[str, Any], *, colour: bool = False) -> str:
    """Return the plan as text, what is to be built first."""
    parts = [
        _format_artifacts(plan["artifacts"], colour=colour),
        _format_base(plan),
        _format_files(plan["gguf"], colour=colour),
        _format_disk(plan["disk"], colour=colour),
        _format_memory(plan["memory"], colour=colour),
        _format_rows(plan["rows"], plan["training"]),
        _format_gpus(plan["gpus"], colour=colour),
        _format_sentences(plan["verdicts"], plan["advice"], colour=colour),
    ]
    return "\n".join(part for part in parts if part)


def _format_artifacts(artifacts: Sequence[Mapping[str, Any]], *, colour: bool) -> str:
    rows = [
        (each["name"], each["state"], _format_estimate(each["bytes"]), each["why"])
        for each in artifacts
    ]
    table = format_table(("artifact", "state", "bytes", "why"), rows)
    return paint_table(table, {"state": _STATES}) if colour else table


def _format_estimate(size_bytes: int) -> str:
    return format_bytes(size_bytes) if size_bytes else "-"


def _format_base(plan: Mapping[str, Any]) -> str:
    parameters, tensors, base = plan["parameters"], plan["tensors"], plan["base"]
    share = 100 * parameters["trainable"] / parameters["base"]
    text = (
        f"base: {base['source']}, by its config ({base['origin']})\n"
        f"parameters: {parameters['base']:,} in {tensors['kept']:,} tensors;"
        f" trainable {parameters['trainable']:,} ({share:.2f} %)\n"
    )
    left_out = []
    if tensors["dropped"]:
        vision = f"{tensors['dropped_parameters']:,} in {tensors['dropped']:,} tensors of vision"
        left_out.append(vision)
    if tensors["scales"]:
        left_out.append(f"{tensors['scales']:,} scales of FP8 weights, once they are multiplied")
    if None in (tensors["dropped"], tensors["scales"]):
        left_out.append("what only the checkpoint's own headers tell")
    return text + (f"left out: {', '.join(left_out)}\n" if left_out else "")


def _format_files(files: Mapping[str, Mapping[str, Any]], *, colour: bool) -> str:
    rows = [
        (
            name,
            format_bytes(each["bytes"]),
            format_bytes(each["metadata_bytes"]),
            "yes" if each["is_exact"] else "no",
        )
        for name, each in files.items()
    ]
    table = format_table(("gguf", "bytes", "of them metadata", "to the byte"), rows)
    if colour:
        table = paint_table(table, {"to the byte": _ANSWERS})
    reasons = dict.fromkeys(each["why"] for each in files.values() if each["why"])
    return table + "".join(f"{_wrap(f'not to the byte: {each}')}\n" for each in reasons)


def _wrap(text: str) -> str:
    return textwrap.fill(text, width=_LINE, subsequent_indent="  ", break_long_words=False)


def _format_disk(disk: Mapping[str, int], *, colour: bool) -> str:
    needed, free = disk["needed_bytes"], disk["free_bytes"]
    short = f": {needed - free:,} too few" if needed > free else ""
    if colour and short:
        short = paint(short, "red")
    text = f"disk: {needed:,} bytes needed, {free:,} free{short}\n"
    if disk["end_with_gc_bytes"] < needed:
        text += (
            f"      {disk['peak_with_gc_bytes']:,} at the most, {disk['end_with_gc_bytes']:,} at"
            " the end, with `gc --intermediates --delete` after each artifact\n"
        )
    if disk["intermediate_bytes"]:
        text += f"      {disk['intermediate_bytes']:,} could be deleted (gc --intermediates)\n"
    if disk["unreached_bytes"]:
        text += f"      {disk['unreached_bytes']:,} are reached by no recipe (gc)\n"
    return text


def _format_memory(memory: Mapping[str, Mapping[str, Any]], *, colour: bool) -> str:
    text = ""
    for verb, needed in memory.items():
        where = _MEMORY[needed["device"]]
        rows = [(_PARTS.get(name, name), size) for name, size in needed["parts"].items()]
        rows.append(("together", needed["bytes"]))
        if needed.get("host_bytes") and needed["device"] == "cuda":
            rows.append(("memory of the host", needed["host_bytes"]))
        unit_bytes, unit = (_GIB, "GiB") if needed["bytes"] >= _GIB else (_MIB, "MiB")
        cells = [(name, format_bytes(size), f"{size / unit_bytes:.1f}") for name, size in rows]
        table = format_table((f"{where} to {verb}", "bytes", unit), cells)
        text += ("\n" if text else "") + (paint_table(table, {}) if colour else table)
    return text


def _format_rows(rows: Mapping[str, Any] | None, training: Mapping[str, Any]) -> str:
    text = "rows: not counted, since they are not at hand or need the image to be read\n"
    if rows is not None:
        about = "" if rows["is_exact"] else "about "
        text = (
            f"rows: {about}{rows['read']:,} read, {rows['train']:,} to train on,"
            f" {rows['held_out']:,} held out; {about}{rows['tokens']:,} tokens"
        )
        if rows["supervised_tokens"] is not None:
            text += f", {rows['supervised_tokens']:,} of them supervised"
        text += f"; {100 * rows['too_long_share']:.1f} % are longer than a sequence\n"
        text += f"      {rows['why']}\n" if rows["why"] else ""
    if training["steps"] is None:
        text += "steps: not known without the rows, and so is the time of the training\n"
    else:
        passes = "" if training["epochs"] is None else f" ({training['epochs']:g} epochs)"
        text += f"steps: {training['steps']:,}{passes}\n"
    return text


def _format_gpus(gpus: Sequence[Mapping[str, Any]], *, colour: bool) -> str:
    if not gpus:
        return ""
    has_cost = any(each["cost"] is not None for each in gpus)
    headings = ("GPU", "memory", "trains", "longest sequence", "serves", "a step", "training")
    rows = [
        (
            each["name"],
            f"{each['nominal_gb']} GB",
            "yes" if each["trains"] else "no",
            f"{each['longest_sequence']:,}" if each["longest_sequence"] else "none",
            "yes" if each["serves"] else "no",
            *_format_time(each, has_cost=has_cost),
        )
        for each in gpus
    ]
    table = format_table((*headings, *(["cost"] if has_cost else [])), rows)
    return paint_table(table, {"trains": _ANSWERS, "serves": _ANSWERS}) if colour else table


def _format_time(gpu: Mapping[str, Any], *, has_cost: bool) -> list[str]:
    """Return the time of a step, of all, and the cost; of a card that it does not fit, none."""
    cost = "-" if gpu["cost"] is None else f"{gpu['cost']:,.2f}"
    cells = [_format_duration(gpu["step_s"]), _format_duration(gpu["total_s"]), cost]
    shown = cells if has_cost else cells[:2]
    return shown if gpu["trains"] else ["-" for _ in shown]


def _format_duration(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _format_sentences(verdicts: Sequence[str], advice: Sequence[str], *, colour: bool) -> str:
    lines = [_paint_answer(each) if colour else each for each in verdicts]
    lines += [_wrap(f"advice: {each}") for each in advice]
    return "".join(f"{line}\n" for line in lines)


def _paint_answer(sentence: str) -> str:
    """Return the sentence with its first yes or no in its colour."""
    for word, colour in _ANSWERS.items():
        before, found, after = sentence.partition(f": {word}")
        if found:
            return f"{before}: {paint(word, colour)}{after}"
    return sentence
