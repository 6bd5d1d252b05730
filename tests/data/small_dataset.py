"""A build of one data set whose inputs are sealed by hand, for a test that kills it.

`python -m tests.data.small_dataset STORE` builds it with this very Python.
"""

import os
import subprocess
import sys
from pathlib import Path

from pipeline.artifact.build import make_manifest
from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.rule import Rule
from pipeline.artifact.seal import seal
from pipeline.artifact.steps import Step
from pipeline.artifact.store import Store, open_store
from pipeline.artifact.workspace import make_workspace
from pipeline.log import start_log
from tests.artifact.small_build import HereEngine, build_small, make_small_steps
from tests.data.canonical import assistant, chat, user, write_canonical
from tests.tiny_text import write_tokenizer

ROWS = 60
_ANSWER = "ab c\n" * 10_000  # so that the rows are several parts

RULES = (
    *(Rule(name=name, image="train", stage="demo.rows", options={}) for name in ("text", "rows")),
    Rule(
        name="dataset",
        image="train",
        stage="data.dataset",
        options={
            "sequence_length": 1 << 20,
            "too_long": "drop",
            "supervise": "every",
            "thinking": "text",
        },
        inputs={"text": "text", "rows": "rows"},
        resumes=True,
    ),
)


def seal_inputs(store: Store) -> None:
    """Seal a tokenizer and the rows as the first two rules' artifacts."""
    text, rows, _ = make_small_steps(store, RULES)
    _seal(store, text)
    _seal(store, rows)


def _seal(store: Store, step: Step) -> None:
    with make_workspace(store.workspaces, step.rule.name) as work:
        out = work / "out"
        out.mkdir()
        if step.rule.name == "text":
            write_tokenizer(out)
        else:
            made = [
                chat(user(f"{n}?"), assistant(f"{n}{_ANSWER}"), row_id=f"r{n}") for n in range(ROWS)
            ]
            write_canonical(out / "train.jsonl", made)
            write_canonical(out / "held_out.jsonl", made[:1])
        manifest = make_manifest(step, {}, HereEngine())
        seal(store, out, key=step.key, name=step.rule.name, manifest=manifest, seconds=0.0)


def build_dataset(store: Store) -> Path:
    """Build the data set; return its directory."""
    return build_small(store, RULES, ["dataset"])["dataset"].path


def start_builder(store: Store) -> "subprocess.Popen[str]":
    """Start the build in a process and a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.data.small_dataset", str(store.root)],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )


if __name__ == "__main__":
    start_log()
    build_dataset(open_store(Path(sys.argv[1])))
