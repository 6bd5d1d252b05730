"""The trainer's log -> metrics.jsonl, a line per optimizer step, and metrics.json, the summary.

Only what a repetition of the run gives again: no time, no memory. So the files are sealed with the
adapter, and equal whether a run was interrupted or not: the trainer keeps its log in its
checkpoints.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

RECORDS = "metrics.jsonl"
SUMMARY = "metrics.json"

# Our names for what the trainer logs; whatever else it logs is left out.
_OF_STEP = {
    "loss": "loss",
    "mean_token_accuracy": "accuracy",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "tokens": "tokens",
}
_OF_EVALUATION = {"eval_loss": "eval_loss", "eval_mean_token_accuracy": "eval_accuracy"}


class TokenCount(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Adds to the trainer's log what each step's own `tokens` are.

    The trainer counts them all, and begins anew when a run is resumed.
    """

    def __init__(self) -> None:
        self._so_far = 0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Take one step's log."""
        if logs and "loss" in logs:
            so_far = int(logs["num_tokens"])
            state.log_history[-1]["tokens"] = so_far - self._so_far
            self._so_far = so_far


def make_records(log_history: Iterable[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return a record per step: step, epoch, what was logged of it, and what an evaluation after
    it has found.

    `tokens` are the step's own, prompts included and padding not.
    """
    records: dict[int, dict[str, float]] = {}
    for logs in log_history:
        names = _OF_STEP if "loss" in logs else _OF_EVALUATION
        found = {ours: logs[theirs] for theirs, ours in names.items() if theirs in logs}
        if found:
            step = {"step": logs["step"], "epoch": logs.get("epoch", 0.0)}
            records.setdefault(logs["step"], step).update(found)
    return [records[step] for step in sorted(records)]


def write_metrics(
    log_history: Iterable[Mapping[str, Any]], summary: Mapping[str, Any], out: Path
) -> None:
    """Write both files."""
    lines = [json.dumps(record) + "\n" for record in make_records(log_history)]
    (out / RECORDS).write_text("".join(lines), encoding="utf-8")
    text = json.dumps(summary, indent=2, sort_keys=True) + "\n"
    (out / SUMMARY).write_text(text, encoding="utf-8")
