"""`python -m bench.train_steps WAY CASE.json FIGURES.json`: what bench.train runs as processes.

WAY is `ours`, the trainer as the stage sets it up, with all that looks at its steps; or `trl`,
TRL's own trainer with the same rows, model and settings and nothing else; `turns`, both, a step
each in turns; or `matmul`, the device itself. The figures: seconds of each step but the first few,
and the peak of memory. Out of memory is a figure, too.
"""

import dataclasses
import json
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig, SFTTrainer

from bench.random_model import make_random_nf4
from bench.train_case import WARM_STEPS, Case
from pipeline.data.encoding import read_tokenizer
from pipeline.demo.pretrain import make_model
from pipeline.demo.tokenizer import write_tokenizer
from pipeline.log import start_log
from pipeline.recipe.train import Train
from pipeline.sft.arrow import IGNORED
from pipeline.sft.guards import check_step
from pipeline.sft.method import Subject, make_adapted
from pipeline.sft.metrics import TokenCount
from pipeline.sft.model import make_repeatable, silence_libraries
from pipeline.sft.names import PROJECTIONS
from pipeline.sft.options import Options
from pipeline.sft.progress import Progress
from pipeline.sft.trainer import make_trainer


class Stopwatch(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Notes when each step ends, after all that others do at that moment."""

    def __init__(self) -> None:
        self.wall_s: list[float] = []
        self.cpu_s: list[float] = []

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.wall_s.append(time.perf_counter())
        self.cpu_s.append(time.process_time())


class Turns(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Hands over to the other trainer after each step and times its own alone.

    Comes last among the callbacks. Whatever slows the machine for a while is then met by both.
    """

    def __init__(
        self, mine: threading.Semaphore, other: threading.Semaphore, *, repeats: bool
    ) -> None:
        self._mine, self._other, self._repeats = mine, other, repeats
        self._begun = (0.0, 0.0)
        self.wall_s: list[float] = []
        self.cpu_s: list[float] = []

    def _go_on(self) -> None:
        self._mine.acquire()
        torch.use_deterministic_algorithms(self._repeats)  # of the whole process
        self._begun = time.perf_counter(), time.process_time()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._go_on()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self.wall_s.append(time.perf_counter() - self._begun[0])
        self.cpu_s.append(time.process_time() - self._begun[1])
        self._other.release()
        self._go_on()  # what comes after a step, such as its log, counts for the next one

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._other.release()


class _Guard(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """The stage's look at each step, without the data set that its look at step 50 needs."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if logs and "grad_norm" in logs:
            check_step(state.global_step, logs)


def make_rows(case: Case) -> Dataset:
    """Return random ids, the second half of each row supervised."""
    count = case.batch_size * case.gradient_accumulation * (case.steps + WARM_STEPS)
    generator = torch.Generator().manual_seed(1)
    vocabulary = case.text_config["vocab_size"]
    ids = torch.randint(20, vocabulary, (count, case.tokens), generator=generator)
    labels = ids.clone()
    labels[:, : case.tokens // 2] = IGNORED
    return Dataset.from_dict({"input_ids": ids.tolist(), "labels": labels.tolist()})


def make_base(case: Case) -> Any:
    """Return the base with random weights, where it is trained."""
    if case.method == "qlora":
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        return make_random_nf4(case.text_config, device)
    return make_model(case.text_config, seed=1)


def make_ours(case: Case, scratch: Path) -> SFTTrainer:
    """Return the trainer as the stage sets it up."""
    make_repeatable(case.threads)
    options = _make_options(case)
    adapted = make_adapted(make_base(case), options)
    (scratch / "text").mkdir()
    write_tokenizer(scratch / "text")
    subject = Subject(model=adapted, text=scratch / "text", start={})
    trainer = make_trainer(subject, make_rows(case), options=options, scratch=scratch)
    trainer.add_callback(_Guard())
    trainer.add_callback(TokenCount())
    trainer.add_callback(Progress())
    return trainer


def make_bare(case: Case, scratch: Path) -> SFTTrainer:
    """Return TRL's own trainer."""
    torch.set_num_threads(case.threads)
    (scratch / "text").mkdir()
    write_tokenizer(scratch / "text")
    on_gpu = torch.cuda.is_available()
    arguments = SFTConfig(
        output_dir=str(scratch),
        learning_rate=1e-4,
        per_device_train_batch_size=case.batch_size,
        gradient_accumulation_steps=case.gradient_accumulation,
        max_steps=case.steps + WARM_STEPS,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        bf16=on_gpu,
        gradient_checkpointing=on_gpu,
        activation_offloading=case.activation_offload,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    return SFTTrainer(
        model=make_base(case),
        args=arguments,
        train_dataset=make_rows(case),
        processing_class=read_tokenizer(scratch / "text"),
        peft_config=LoraConfig(
            r=case.rank,
            lora_alpha=case.rank,
            target_modules=list(PROJECTIONS),
            task_type="CAUSAL_LM",
        ),
    )


def _make_options(case: Case) -> Options:
    """Return the case's options, what it does not say being the recipe's default."""
    said = {
        "method": case.method,
        "rank": case.rank,
        "alpha": float(case.rank),
        "schedule": "linear",
        "warmup_steps": 0,
        "batch_size": case.batch_size,
        "gradient_accumulation": case.gradient_accumulation,
        "gradient_checkpointing": torch.cuda.is_available(),
        "activation_offload": case.activation_offload,
        "max_steps": case.steps + WARM_STEPS,
        "cpu_threads": case.threads,
        "report_to": "",
    }
    values = vars(Train()) | said
    return Options(**{each.name: values.get(each.name, "") for each in dataclasses.fields(Options)})


def measure(way: str, case: Case) -> dict[str, Any]:
    """Return the seconds of each step that counts, and the peak memory; or that it ran out."""
    silence_libraries()
    if case.memory_bytes and torch.cuda.is_available():
        total_bytes = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, case.memory_bytes / total_bytes))
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            trainer = {"ours": make_ours, "trl": make_bare}[way](case, Path(scratch))
            trainer.add_callback(watch)
            trainer.train()
        except torch.cuda.OutOfMemoryError as error:
            return {"out_of_memory": str(error).partition("\n")[0]}
    first = WARM_STEPS - 1
    return {
        "wall_s": [b - a for a, b in zip(watch.wall_s[first:], watch.wall_s[first + 1 :])],  # noqa: B905
        "cpu_s": [b - a for a, b in zip(watch.cpu_s[first:], watch.cpu_s[first + 1 :])],  # noqa: B905
        "peak_bytes": _read_peak_bytes(),
    }


def measure_in_turns(case: Case) -> dict[str, dict[str, list[float]]]:
    """Return the seconds of each step that counts of both ways, taken in turns in one process."""
    silence_libraries()
    ours, bare = threading.Semaphore(1), threading.Semaphore(0)
    turns = {
        "ours": Turns(ours, bare, repeats=True),
        "trl": Turns(bare, ours, repeats=False),
    }
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
        trainers = {"ours": make_ours(case, Path(one)), "trl": make_bare(case, Path(two))}
        for way, trainer in trainers.items():
            trainer.add_callback(turns[way])
        threads = [threading.Thread(target=trainer.train) for trainer in trainers.values()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return {
        way: {"wall_s": each.wall_s[WARM_STEPS:], "cpu_s": each.cpu_s[WARM_STEPS:]}
        for way, each in turns.items()
    }


def _read_peak_bytes() -> int:
    """Return what the GPU's allocator reserved at most; without one, what the process had."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_matmul() -> float:
    """Return the FLOP/s of a large product in bfloat16 on the GPU, which a model is judged by."""
    size, rounds = 8192, 20
    left, right = (torch.randn(size, size, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    for count in (3, rounds):
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(count):
            left @ right
        torch.cuda.synchronize()
    return 2 * size**3 * rounds / (time.perf_counter() - started)


def main(way: str, case_path: str, figures_path: str) -> None:
    """Measure one case and write its figures."""
    start_log()
    case = Case(**json.loads(Path(case_path).read_text(encoding="utf-8")))
    figures: dict[str, Any]
    if way == "matmul":
        figures = {"flops": measure_matmul(), "device": torch.cuda.get_device_name(0)}
    elif way == "turns":
        figures = measure_in_turns(case)
    else:
        figures = measure(way, case)
    Path(figures_path).write_text(json.dumps(figures), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
