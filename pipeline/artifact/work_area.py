"""The work area of an artifact in the making: `.work/<key>-<rule>/`, which outlives its maker.

A rule that `resumes` gets it as `run(inputs, options, out, work)`: one more directory to write,
empty at first, with whatever an earlier run of this very key has left there, however that ended;
gone when the artifact is sealed. What is in it may save work and never decides the bytes. What a
later run trusts is created there by `publish` alone. `reports/` in it is for people: that is kept,
beside the log.
"""

from pathlib import Path

from pipeline.artifact.file_lock import is_held
from pipeline.artifact.steps import Step
from pipeline.artifact.store import Store
from pipeline.artifact.workspace import remove_tree
from pipeline.log import say

REPORTS = "reports"


def open_work_area(step: Step, store: Store, *, work: Path) -> Path:
    """Return the step's work area; this process holds the lock of its key.

    On a file system whose locks do nothing it is one below `work`, nobody else's and gone with it:
    two makers in one area would tread on each other.
    """
    area = store.work_areas / step.directory
    if not is_held(store.lock_path(step.key)):
        area = work / "work"
    area.mkdir(parents=True, exist_ok=True)
    if any(area.iterdir()):
        say(f"{step.rule.name}: goes on from what an earlier run has left in {area}")
    return area


def remove_work_area(step: Step, store: Store) -> None:
    """Remove the step's work area, if there is one: its artifact is sealed.

    Its reports are moved; those that an earlier artifact of the key has left stay as they are.
    """
    area = store.work_areas / step.directory
    kept = store.reports_path(step.key, step.rule.name)
    if (area / REPORTS).is_dir() and not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        (area / REPORTS).rename(kept)
        say(f"{step.rule.name}: its reports are in {kept}")
    remove_tree(area)
