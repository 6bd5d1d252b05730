"""Jobs that ask a hub, each told by a line of JSON on standard input, in a process of their own.

The hub's library reads where the hub is when it is imported. Each answer is a line of JSON: null,
or the error's what, on, why and then; and what `datasets` itself reads, where that is asked.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.engine.network import make_network_variables
from pipeline.engine.stage import make_stage_variables
from pipeline.errors import TristillError
from pipeline.job import run_job


def start(work: Path, endpoint: str, **caller: str) -> "subprocess.Popen[str]":
    """Start the process with what a stage that fetches would get of these variables."""
    work.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "tests.hub.hub_job"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={
            **make_stage_variables("train", work),
            **make_network_variables({"HF_ENDPOINT": endpoint, **caller}),
        },
    )


def run(work: Path, endpoint: str, jobs: Sequence[dict[str, Any]], **caller: str) -> list[Any]:
    """Return the jobs' answers."""
    process = start(work, endpoint, **caller)
    told, _ = process.communicate("".join(json.dumps(job) + "\n" for job in jobs))
    assert process.returncode == 0
    return [json.loads(line) for line in told.splitlines()]


def make_job(folder: Path, stage: str, **options: str) -> dict[str, Any]:
    """Return the job of a stage that fetches; it writes `out` in the folder."""
    (folder / "out").mkdir(parents=True)
    (folder / "area").mkdir(exist_ok=True)
    places = {"out": str(folder / "out"), "work": str(folder / "area")}
    return {"stage": stage, "inputs": {}, "options": options, "network": True, **places}


def _load(name: str, subset: str, revision: str, split: str) -> list[Any]:
    import datasets

    rows = datasets.load_dataset(name, subset, revision=revision, split=split, streaming=True)
    return list(rows)


def _answer(job: dict[str, Any]) -> Any:
    try:
        return _load(*job["load"]) if "load" in job else run_job(job)
    except TristillError as error:
        return vars(error)


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(json.loads(line))) + "\n")
