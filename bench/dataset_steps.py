"""`python -m bench.dataset_steps STEP ...`: what bench.dataset runs as processes of their own.

Each writes its figures to a JSON file: the seconds of the work itself, without imports, and a
digest of the first rows' ids and masks, which must be the same for both ways.
"""

import hashlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

# Of these many rows the ids and masks are compared, token by token.
COMPARED_ROWS = 2000

_IGNORED = -100  # PyTorch's, too


def prepare_ours(text: str, rows: str, out: str, figures: str) -> None:
    """Run the stage: Arrow files, statistics and report."""
    from pipeline.data import dataset
    from pipeline.data.partition import make_renderer
    from pipeline.data.statistics import read_batches
    from pipeline.data.style import Style

    options = dataset.Options(
        sequence_length=1 << 20,
        too_long="drop",
        supervise="every",
        thinking="text",
    )
    make_renderer(Path(text), Style())  # the tokenizer is read before the clock starts, as TRL's
    started, cpu_s = time.perf_counter(), -_read_cpu_s()
    work = Path(out) / "work"
    work.mkdir()
    dataset.run({"text": Path(text), "rows": Path(rows)}, options, Path(out), work)
    seconds, cpu_s = time.perf_counter() - started, cpu_s + _read_cpu_s()
    summary = json.loads((Path(out) / "statistics.json").read_text(encoding="utf-8"))["train"]
    pairs = (
        (batch.ids[start:stop].tolist(), batch.mask[start:stop].tolist())
        for batch in read_batches(Path(out) / "train.arrow")
        for start, stop in zip(batch.starts, batch.stops, strict=True)
    )
    _write_figures(figures, (seconds, cpu_s), summary["rows"], summary["tokens"], pairs)


def prepare_trl(text: str, rows: str, out: str, figures: str) -> None:
    """Let TRL's trainer read and prepare the same rows on as many processes as there are cores."""
    import datasets
    from trl import SFTConfig, SFTTrainer

    from pipeline.data.encoding import read_tokenizer
    from pipeline.sft.model import silence_libraries

    silence_libraries()
    datasets.disable_progress_bars()
    spent, cpu_s = 0.0, 0.0

    class Timed(SFTTrainer):  # type: ignore[misc, unused-ignore]
        """The trainer, with a clock on its preparation."""

        def _prepare_dataset(self, *arguments: Any, **named: Any) -> Any:
            nonlocal spent, cpu_s
            spent, cpu_s = spent - time.perf_counter(), cpu_s - _read_cpu_s()
            prepared = super()._prepare_dataset(*arguments, **named)
            spent, cpu_s = spent + time.perf_counter(), cpu_s + _read_cpu_s()
            return prepared

    arguments = SFTConfig(
        output_dir=out,
        dataset_num_proc=len(os.sched_getaffinity(0)),
        max_length=None,
        completion_only_loss=True,
        use_cpu=True,
        bf16=False,
        report_to="none",
    )
    tokenizer = read_tokenizer(Path(text))
    model = _make_small_model(len(tokenizer))
    spent, cpu_s = spent - time.perf_counter(), cpu_s - _read_cpu_s()
    loaded = datasets.load_dataset(
        "json", data_files=str(Path(rows) / "trl.jsonl"), split="train", cache_dir=out
    )
    spent, cpu_s = spent + time.perf_counter(), cpu_s + _read_cpu_s()
    trainer = Timed(model=model, args=arguments, train_dataset=loaded, processing_class=tokenizer)
    prepared = trainer.train_dataset.with_format("arrow")
    tokens = sum(
        len(part.column("input_ids").combine_chunks().flatten()) for part in prepared.iter(10_000)
    )
    first = trainer.train_dataset.select(range(min(COMPARED_ROWS, len(prepared))))
    # It has made labels of the mask: the id, or -100.
    pairs = (
        (row["input_ids"], [int(label != _IGNORED) for label in row["labels"]]) for row in first
    )
    _write_figures(figures, (spent, cpu_s), len(prepared), tokens, pairs)


def _make_small_model(vocabulary_size: int) -> Any:
    """Return what the trainer insists on; nothing is computed with it."""
    from transformers import Ministral3Config, Ministral3ForCausalLM

    return Ministral3ForCausalLM(
        Ministral3Config(
            vocab_size=vocabulary_size,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            num_key_value_heads=1,
            head_dim=8,
        )
    )


def _read_cpu_s() -> float:
    """Return the CPU seconds of this process and of those that it has waited for."""
    used = [resource.getrusage(each) for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _write_figures(
    path: str,
    spent: tuple[float, float],
    rows: int,
    tokens: int,
    pairs: Iterable[tuple[Sequence[int], Sequence[int]]],
) -> None:
    digest = hashlib.sha256()
    for number, (ids, mask) in enumerate(pairs):
        if number == COMPARED_ROWS:
            break
        digest.update(json.dumps([list(map(int, ids)), list(map(int, mask))]).encode())
    figures = {
        "seconds": spent[0],
        "cpu_s": spent[1],
        "rows": rows,
        "tokens": tokens,
        "digest": digest.hexdigest(),
    }
    Path(path).write_text(json.dumps(figures), encoding="utf-8")


_STEPS: dict[str, Callable[..., None]] = {"ours": prepare_ours, "trl": prepare_trl}

if __name__ == "__main__":
    _STEPS[sys.argv[1]](*sys.argv[2:])
