"""[train] where several processes train: what it may say of them, and DeepSpeed's configuration.

Standard library alone.
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.sft.names import FSDP, QLORA

if TYPE_CHECKING:
    from pipeline.recipe.train import Train

_ADDRESS = re.compile(r".+:([1-9]\d{0,4})")
_LAST_PORT = 65535


def find_process_contradictions(train: "Train", folder: Path) -> list[str]:
    """Return what each field may say but the table as a whole cannot; paths are relative to
    `folder`."""
    problems = []
    if train.gradient_accumulation % train.processes:
        problems.append("gradient_accumulation: must be a multiple of processes, which share it")
    if train.processes % train.hosts:
        problems.append("processes: must be a multiple of hosts, which have as many each")
    address = _ADDRESS.fullmatch(train.address)
    if train.hosts > 1 and not (address and int(address[1]) <= _LAST_PORT):
        problems.append("address: several hosts need HOST:PORT of the first")
    is_shared = train.sharding == FSDP or bool(train.deepspeed)
    if is_shared and (train.processes == 1 or train.accelerator == "cpu"):
        problems.append("sharding, deepspeed: only several GPUs have parts of a model to hold")
    if is_shared and train.method == QLORA:
        problems.append(
            "sharding, deepspeed: a part of an NF4 weight is none; it is small as it is"
        )
    if train.sharding == FSDP and train.deepspeed:
        problems.append("deepspeed: it shares weights out itself: leave sharding as it is")
    if train.deepspeed:
        problems += _find_deepspeed_problems(folder / train.deepspeed)
    return problems


def _find_deepspeed_problems(path: Path) -> list[str]:
    try:
        stage = _read_json(path).get("zero_optimization", {}).get("stage", 0)
    except (OSError, ValueError, AttributeError) as error:
        return [f"deepspeed: {path} is no configuration: {error}"]
    if stage == 3:
        return ['deepspeed: of stage 3 no checkpoint is written here: set sharding = "fsdp"']
    return []


def resolve_train(train: "Train", folder: Path) -> "Train":
    """Return the table with DeepSpeed's configuration itself in the place of its path."""
    if not train.deepspeed:
        return train
    text = json.dumps(_read_json(folder / train.deepspeed), sort_keys=True)
    return dataclasses.replace(train, deepspeed=text)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
