"""GSM8K's rows -> the rows that both ways prepare: a think trace for each human solution.

In: the directory with train.jsonl (`question`, `answer`, the result after `####`). Out: the
canonical rows that the stage reads, and TRL's conversational prompt and completion of the same
texts. Copies are whole, one after the other, with ids of their own.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

from pipeline.data.rendering import make_assistant_text
from pipeline.data.row import Message, Row, write_row
from pipeline.errors import UsageError

# What a calculator would have said, written into the solutions: <<48/2=24>>.
_CALCULATION = re.compile(r"<<[^>]*>>")
_HELD_OUT = 10


class Trace(NamedTuple):
    """One problem as a teacher would have solved it."""

    problem: str
    thinking: str
    solution: str


def read_traces(folder: Path, limit: int | None) -> list[Trace]:
    """Return the first `limit` traces. Raises UsageError when the folder holds another thing."""
    path = folder / "train.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()[:limit]
        return [_make_trace(json.loads(line)) for line in lines]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            "there are no GSM8K rows",
            on=str(path),
            why=f"{type(error).__name__}: {error}",
            then="give the directory of GSM8K's train.jsonl with --rows",
        ) from None


def _make_trace(row: dict[str, str]) -> Trace:
    steps, _, result = _CALCULATION.sub("", row["answer"]).rpartition("####")
    return Trace(row["question"], steps.strip(), result.strip())


def write_rows(traces: list[Trace], copies: int, out: Path) -> None:
    """Write train.jsonl and held_out.jsonl for the stage, trl.jsonl for TRL."""
    out.mkdir()
    with (
        (out / "train.jsonl").open("w", encoding="utf-8") as ours,
        (out / "trl.jsonl").open("w", encoding="utf-8") as theirs,
    ):
        for number in range(copies * len(traces)):
            trace = traces[number % len(traces)]
            ours.write(_make_line(trace, number) + "\n")
            theirs.write(_make_pair(trace) + "\n")
    held_out = [_make_line(trace, number) for number, trace in enumerate(traces[:_HELD_OUT])]
    (out / "held_out.jsonl").write_text("\n".join(held_out) + "\n", encoding="utf-8")


def _make_line(trace: Trace, number: int) -> str:
    answer = Message(role="assistant", content=trace.solution, thinking=trace.thinking)
    messages = (Message(role="user", content=trace.problem), answer)
    return write_row(Row(id=f"{number:08d}", messages=messages, domain="sums"))


def _make_pair(trace: Trace) -> str:
    answer = make_assistant_text(trace.thinking, trace.solution)
    pair = {
        "prompt": [{"role": "user", "content": trace.problem}],
        "completion": [{"role": "assistant", "content": answer}],
    }
    return json.dumps(pair, ensure_ascii=False)
