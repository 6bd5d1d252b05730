"""A rebuild notices whatever of its surroundings gets into the bytes, and nothing else."""

import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline.artifact.build import build
from pipeline.artifact.engine import Variation
from pipeline.artifact.gc import collect
from pipeline.artifact.rebuild import rebuild, require_sealed
from pipeline.artifact.rule import Rule
from pipeline.artifact.steps import Step, make_steps
from pipeline.artifact.store import Artifact, Store, open_store
from pipeline.engine import process
from pipeline.engine.stage import make_stage_variables
from pipeline.errors import StageError, StoreError, UsageError
from tests.artifact.sealing import damage_file
from tests.artifact.small_build import ENVIRONMENTS, HereEngine, build_small, make_small_steps


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


class ScriptEngine(HereEngine):
    """Runs one line of Python, which writes the file `out`, in place of any stage."""

    def __init__(self, line: str) -> None:
        self._line = line

    def run(
        self,
        image: str,
        job: dict[str, Any],
        *,
        work: Path,
        log: Path,
        variation: Variation | None = None,
    ) -> int:
        varied = variation.variables if variation else {}
        script = f"import locale, os, subprocess, time; out = open({job['out'] + '/out'!r}, 'w')\n"
        return process.run(
            [sys.executable, "-c", script + self._line],
            log_path=log,
            environment={**make_stage_variables(image, work), **varied},
            cwd=work,
            umask=variation.umask if variation else 0o022,
        )


_RULE = Rule(name="text", image="train", stage="demo.rows", options={})


def _make(store: Store, engine: HereEngine) -> tuple[Step, dict[str, Artifact]]:
    build(make_steps([_RULE], ["text"], store, ENVIRONMENTS), ["text"], store, engine)
    (step,) = make_steps([_RULE], ["text"], store, ENVIRONMENTS)
    assert step.artifact is not None
    return step, {"text": step.artifact}


@pytest.mark.parametrize(
    "line",
    [
        "out.write(os.getcwd())",
        "out.write(str(hash('text')))",
        "out.write(time.strftime('%z'))",
        "out.write(time.strftime('%Y'))",
        "out.write(subprocess.run(['date', '+%Y'], capture_output=True, text=True).stdout)",
        "out.write(os.environ['LC_ALL'])",
        "out.write(str(os.umask(0)))",
    ],
    ids=["directory", "hash seed", "time zone", "time", "time in C", "locale", "umask"],
)
def test_what_leaks_into_the_bytes_is_found_and_kept(store: Store, line: str) -> None:
    engine = ScriptEngine(line)
    step, sealed = _make(store, engine)
    difference = rebuild(step, sealed, store, engine)
    assert difference is not None
    assert difference.files == ("out",)
    kept = (difference.rebuilt / "out").read_text()
    assert kept != (sealed["text"].path / "out").read_text()
    assert list(store.workspaces.iterdir()) == []
    collect(store, {step.directory})
    assert not difference.rebuilt.exists()


def test_a_real_stage_gives_the_same_bytes_again_and_leaves_nothing(store: Store) -> None:
    sealed = build_small(store)
    for step in make_small_steps(store):
        assert rebuild(step, sealed, store, HereEngine()) is None
    assert not (store.root / ".rebuilt").exists()
    assert list(store.workspaces.iterdir()) == []


def test_durations_are_measured_by_clocks_that_are_left_alone(store: Store) -> None:
    engine = ScriptEngine("a = time.monotonic(); time.sleep(0.01); assert time.monotonic() > a")
    step, sealed = _make(store, engine)
    assert rebuild(step, sealed, store, engine) is None


def test_a_stage_that_fails_the_second_time_is_a_failed_stage(store: Store) -> None:
    engine = ScriptEngine("out.write('x'); assert os.environ['LC_ALL'] == 'C.UTF-8'")
    step, sealed = _make(store, engine)
    with pytest.raises(StageError, match="failed") as caught:
        rebuild(step, sealed, store, engine)
    assert Path(caught.value.then.rpartition(" ")[2]).is_file(), "the log that it names is there"


def test_a_damaged_artifact_is_told_from_another_rebuild(store: Store) -> None:
    engine = ScriptEngine("out.write(os.getcwd())")
    step, sealed = _make(store, engine)
    damage_file(sealed["text"].path / "out", "flipped")
    with pytest.raises(StoreError, match="the sealed artifact is damaged"):
        rebuild(step, sealed, store, engine)


def test_what_is_not_sealed_cannot_be_compared(store: Store) -> None:
    with pytest.raises(UsageError, match="nothing to compare") as caught:
        require_sealed(make_small_steps(store), ["rows"])
    assert caught.value.on == "base, rows"
