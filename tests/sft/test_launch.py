"""Several processes train what one does, and their failures and ends are the stage's."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import StageError
from pipeline.sft.launch import Group, find_free_port, launch
from pipeline.sft.trainer import make_arguments
from tests.data.canonical import assistant, chat, user, write_canonical
from tests.sft.conftest import make_dataset
from tests.sft.failing import fail_in_one
from tests.sft.training import OPTIONS, ROOT, read_files, run_here, start_run

pytestmark = [pytest.mark.train, pytest.mark.filterwarnings("ignore::FutureWarning:transformers")]

CHANGES: dict[str, Any] = {"epochs": 3.0, "max_steps": 0, "learning_rate": 1e-3}
FINISHED = "step-000012/adapter_model.safetensors"


@pytest.fixture
def uneven(text: Path, tmp_path: Path) -> Path:
    """Return 27 rows: six batches of 4 and one of 3, so that one process has a batch less."""
    made = [chat(user(f"{n}?"), assistant("+" * (n % 9 + 1)), row_id=f"r{n}") for n in range(35)]
    (tmp_path / "rows").mkdir()
    write_canonical(tmp_path / "rows/train.jsonl", made[:27])
    write_canonical(tmp_path / "rows/held_out.jsonl", made[27:])
    (tmp_path / "dataset").mkdir()
    return make_dataset(text, tmp_path / "rows", tmp_path / "dataset")


def _read_steps(folder: Path, name: str) -> list[float]:
    lines = (folder / "out" / "metrics.jsonl").read_text().splitlines()
    return [record[name] for record in map(json.loads, lines) if name in record]


def test_two_hosts_train_what_one_process_does_also_when_ended_and_under_torchrun(
    text: Path, uneven: Path, tmp_path: Path
) -> None:
    """Two hosts with a process each, ended after a few steps, and then one with two."""
    one, two, other = tmp_path / "one", tmp_path / "two", tmp_path / "other"
    run_here(text, uneven, one, **CHANGES)
    (tmp_path / "other").mkdir()
    (two / "work").mkdir(parents=True)
    (other / "work").symlink_to(two / "work")
    hosts: dict[str, Any] = {
        "processes": 2,
        "hosts": "2",
        "address": f"127.0.0.1:{find_free_port()}",
    }
    with (
        start_run(text, uneven, other, host="1", **hosts, **CHANGES) as second,
        start_run(text, uneven, two, host="0", **hosts, **CHANGES) as first,
    ):
        assert first.stderr is not None
        assert any("step 2/12" in line for line in first.stderr)
        second.terminate()
        rest = first.communicate()[1]
        told = second.communicate()[1]
    assert first.returncode == second.returncode == -signal.SIGTERM, rest
    assert "stopped after step" in rest
    assert "step" not in told
    assert not any((other / "out").iterdir())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", "2"]
    ended = subprocess.run(
        [*torchrun, "-m", "pipeline.job", str(two / "job.json")],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("goes on after step") == 1
    assert read_files(one).keys() == read_files(two).keys()
    for name in ("loss", "grad_norm"):
        assert _read_steps(two, name)[0] == pytest.approx(_read_steps(one, name)[0], rel=1e-5)
        assert _read_steps(two, name) == pytest.approx(_read_steps(one, name), rel=1e-4)
    # An epoch's last step is filled up with five tokens that nothing is learnt from.
    fillers = [5 * (step % 4 == 0) for step in range(1, 13)]
    tokens = [a - b for a, b in zip(_read_steps(two, "tokens"), fillers, strict=True)]
    assert tokens == _read_steps(one, "tokens")
    ours, theirs = (load_file(folder / "out" / FINISHED) for folder in (one, two))
    for name, tensor in ours.items():
        distance = torch.linalg.norm(theirs[name] - tensor) / torch.linalg.norm(tensor)
        assert distance < 1e-3, name


def test_the_error_of_a_process_is_the_stage_s() -> None:
    with pytest.raises(StageError, match="it failed") as caught:
        launch(fail_in_one, (), Group(processes=2))
    assert (caught.value.on, caught.value.then) == ("rank 1", "do not")


def test_sharding_is_the_trainers(tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, sharding="fsdp")
    found = make_arguments(options, tmp_path)
    assert found.fsdp_plugin_args["fsdp_version"] == 2
    assert found.fsdp_plugin_args["state_dict_type"] == "SHARDED_STATE_DICT"
    with pytest.raises(StageError, match="DeepSpeed is not in the image"):
        make_arguments(dataclasses.replace(OPTIONS, deepspeed="{}"), tmp_path)
