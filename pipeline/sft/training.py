"""Text-only checkpoint + dataset -> trained weights at every checkpoint, by PEFT and TRL.

In: `text`, `dataset`. Out: step-NNNNNN/ with the weights after that step (an adapter with
base.sha256, by which a merge refuses another base, or, of method `full`, a text-only checkpoint),
checkpoints.json, which lists them with their evaluations, metrics.jsonl and metrics.json,
sample.json, and hardware.json. What stays true: only completion tokens carry loss; the same inputs
and options give the same bytes on the same machine, whether the run was ended and gone on with or
not, however often and wherever that was; a run that diverges or learns nothing fails and writes
nothing.
"""

import json
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from pipeline.artifact.file_lock import file_lock
from pipeline.data.encoding import read_tokenizer
from pipeline.data.packing import pack_rows
from pipeline.log import say, step
from pipeline.sft.arrow import read_split
from pipeline.sft.attention import check_attention
from pipeline.sft.checkpoint_list import HARDWARE, name_checkpoint, write_list
from pipeline.sft.checkpoints import (
    Checkpoints,
    Interrupts,
    Rhythm,
    State,
    find_state,
    read_evaluations,
    sweep_area,
)
from pipeline.sft.full_disk import answer_full_disk
from pipeline.sft.guards import Guards, check_finite
from pipeline.sft.hardware import describe_device
from pipeline.sft.launch import Group, is_launched, join_others, launch, leave_others
from pipeline.sft.memory import answer_out_of_memory
from pipeline.sft.method import make_subject
from pipeline.sft.metrics import TokenCount, write_metrics
from pipeline.sft.model import make_repeatable, silence_libraries
from pipeline.sft.options import Options as Options
from pipeline.sft.progress import Progress
from pipeline.sft.ranks import find_rank, is_first, share, wait_for_all
from pipeline.sft.reporting import REPORTS, prepare_reporters
from pipeline.sft.sample import write_sample
from pipeline.sft.trainer import Trainer, make_trainer


def run(inputs: Mapping[str, Path], options: Options, out: Path, work: Path) -> None:
    """Train and write the checkpoints with their metrics; go on from what lies in `work`.

    Raises StageError for rows without a supervised token, a loss that is not finite (naming the
    step) or does not move, or weights that are unchanged. Asked to end (SIGTERM, SIGINT), it
    finishes the step, keeps its state in `work`, and ends by that signal.
    """
    if options.processes > 1 and not is_launched():
        group = Group(
            processes=options.processes,
            hosts=int(options.hosts),
            host=int(options.host),
            address=options.address,
        )
        launch(train, (inputs, options, out, work), group)
    else:
        train(inputs, options, out, work)


def train(inputs: Mapping[str, Path], options: Options, out: Path, work: Path) -> None:
    """Be the one process of a run, or one of several."""
    make_repeatable(options.cpu_threads)
    silence_libraries()
    join_others(options.processes)
    waiting_for = "the same, and stops when its checkpoint is written"
    with (
        file_lock(work / "lock", waiting_for=waiting_for) if is_first() else nullcontext(),
        answer_out_of_memory(inputs["text"], inputs["dataset"], options),
        answer_full_disk(work),
    ):
        _train_locked(inputs, options, out, work)
    leave_others()


def _train_locked(inputs: Mapping[str, Path], options: Options, out: Path, work: Path) -> None:
    wait_for_all()  # the first has the lock
    prepare_reporters(tuple(filter(None, options.report_to.split(","))), work / REPORTS)
    state = _find_state(work)
    subject = make_subject(inputs["text"], options)
    check_attention(subject.model)
    making = work / "making"
    held = making / f"rows-{find_rank()}"
    held.mkdir()
    rows = train_rows = read_split(inputs["dataset"] / "train.arrow", scratch=held)
    if options.pack_tokens:
        rows = pack_rows(train_rows, options.pack_tokens, scratch=held)
    trainer = make_trainer(
        subject,
        rows,
        options=options,
        scratch=making,
        held_out=read_split(inputs["dataset"] / "held_out.arrow", limit=options.eval_rows),
    )
    packed = f", {len(rows)} packs" if options.pack_tokens else ""
    devices = _list_devices(state)
    with step(f"train on {len(train_rows)} rows{packed}"):
        log_history = _train_on(trainer, state, options=options, work=work, devices=devices)
    if is_first():
        write_sample(trainer, read_tokenizer(inputs["text"]), out)
        _write(log_history, out, work=work, trainable=subject.count_trainable(), devices=devices)
    wait_for_all()


def _find_state(work: Path) -> State | None:
    """Return the same state in every process, the area swept by the first."""
    state = None
    if is_first():
        state = find_state(work)
        sweep_area(work, state)
    return share(state)


def _list_devices(state: State | None) -> tuple[str, ...]:
    """Return what this run's steps were computed on and will be."""
    before, now = state.devices if state else (), describe_device()
    return before if before[-1:] == (now,) else (*before, now)


def _train_on(
    trainer: Trainer,
    state: State | None,
    *,
    options: Options,
    work: Path,
    devices: tuple[str, ...],
) -> list[dict[str, Any]]:
    """Train to the end, from the state if there is one; return the trainer's whole log."""
    if state and state.is_last:
        say(f"  all {state.step} steps are taken")
        return _read_log(state)
    interrupts = Interrupts()
    checkpoints = Checkpoints(
        work,
        rhythm=Rhythm(
            every_steps=options.checkpoint_steps,
            patience=options.patience,
            best_by=options.best_by,
        ),
        devices=devices,
        interrupts=interrupts,
        write_weights=lambda directory: _write_weights(trainer, checkpoints, directory),
    )
    trainer.add_callback(Guards(read_held_out=lambda: trainer.judge().loss))
    trainer.add_callback(TokenCount())
    trainer.add_callback(Progress())
    trainer.add_callback(checkpoints)
    trainer.args.eval_on_start = state is None
    with interrupts.noted():
        if state:
            say(f"  goes on after step {state.step}")
        trainer.train(resume_from_checkpoint=str(state.path) if state else None)
    if not checkpoints.is_last:
        say(
            f"  stopped after step {trainer.state.global_step}; the same command goes on from there"
        )
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.raise_signal(signal.SIGTERM)
    return list(trainer.state.log_history)


def _read_log(state: State) -> list[dict[str, Any]]:
    return list(TrainerState.load_from_json(str(state.path / TRAINER_STATE_NAME)).log_history)


def _write_weights(trainer: Trainer, checkpoints: Checkpoints, directory: Path) -> None:
    """Write the weights; the last ones only when they are worth it."""
    gathered = trainer.subject.gather()
    if checkpoints.is_last:
        trainer.subject.check_changed(gathered)
        check_finite(read_evaluations(trainer.state.log_history)[-1].loss)
    if is_first():
        trainer.subject.write(directory, gathered)


def _link_or_copy(source: str, target: str) -> None:
    """Give a file another name; in a container the two places lie behind mounts of their own."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _write(
    log_history: Sequence[Mapping[str, Any]],
    out: Path,
    *,
    work: Path,
    trainable: int,
    devices: Sequence[str],
) -> None:
    """Write the artifact: what it says of the run is a function of the trainer's log."""
    before, *evaluations = read_evaluations(log_history)
    last = evaluations[-1]
    say(f"  held-out loss: {before.loss:.4f} before, {last.loss:.4f} after step {last.step}")
    for each in evaluations:
        name = name_checkpoint(each.step)
        shutil.copytree(work / name, out / name, copy_function=_link_or_copy)
    write_list(evaluations, out)
    text = json.dumps({"devices": list(devices)}, indent=2) + "\n"
    (out / HARDWARE).write_text(text, encoding="utf-8")
    summary = {
        "loss_before": before.loss,
        "loss_after": last.loss,
        "steps": last.step,
        "trainable_parameters": trainable,
    }
    write_metrics(log_history, summary, out)
