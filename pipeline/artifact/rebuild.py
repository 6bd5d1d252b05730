"""`rebuild`: an artifact is made again beside the sealed one and compared with it byte by byte.

The stage runs in another directory, finds its inputs under other paths, and in a varied
environment (variation.py). Only what the key names may decide the bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifact.build import make_job, make_stage_error
from pipeline.artifact.engine import Engine
from pipeline.artifact.manifest import File, read_files
from pipeline.artifact.steps import Step
from pipeline.artifact.store import Artifact, Store
from pipeline.artifact.uses import using
from pipeline.artifact.variation import make_variation
from pipeline.artifact.verify import find_damage
from pipeline.artifact.workspace import make_workspace, remove_tree
from pipeline.errors import StoreError, UsageError
from pipeline.log import say

_ELSEWHERE = "built again, elsewhere"


@dataclass(frozen=True, kw_only=True)
class Difference:
    """An artifact whose rebuilt copy has other bytes: where that is kept, and which files differ
    or are on one side only."""

    artifact: Artifact
    rebuilt: Path
    files: tuple[str, ...]


def require_sealed(steps: Sequence[Step], wanted: Sequence[str]) -> None:
    """Raise UsageError unless the wanted artifacts and their inputs are sealed."""
    by_name = {step.rule.name: step for step in steps}
    needed = {name for each in wanted for name in (each, *by_name[each].rule.inputs.values())}
    if absent := [name for name in by_name if name in needed and not by_name[name].artifact]:
        raise UsageError(
            "there is nothing to compare a rebuild with",
            on=", ".join(absent),
            why="not sealed in this store",
            then=f"python -m pipeline build {' '.join(wanted)}",
        )


def rebuild(
    step: Step, sealed: Mapping[str, Artifact], store: Store, engine: Engine
) -> Difference | None:
    """Make the sealed artifact again; return how it differs, or None when every byte is the same.

    What differs is kept below `.rebuilt/`. Raises StageError when the stage fails, StoreError when
    it is the sealed artifact that is not what its manifest says.
    """
    artifact = sealed[step.rule.name]
    needed = [step.directory, *(sealed[name].path.name for name in step.rule.inputs.values())]
    title = f"{step.key[:16]}-{step.rule.name}-again"
    with using(store, needed), make_workspace(store.workspaces, title) as work:
        log = store.log_path(step.key, f"{step.rule.name}.again")
        out = _run_elsewhere(step, sealed, engine, work=work, log=log)
        files = _find_different(artifact.manifest.files, read_files(out))
        if not files:
            return None
        _require_undamaged(artifact)
        kept = store.root / ".rebuilt" / artifact.path.name
        remove_tree(kept)
        kept.parent.mkdir(exist_ok=True)
        out.rename(kept)
    return Difference(artifact=artifact, rebuilt=kept, files=files)


def _run_elsewhere(
    step: Step, sealed: Mapping[str, Artifact], engine: Engine, *, work: Path, log: Path
) -> Path:
    elsewhere = work / _ELSEWHERE
    (elsewhere / "inputs").mkdir(parents=True)
    inputs = {label: elsewhere / "inputs" / label for label in step.rule.inputs}
    for label, path in inputs.items():
        path.symlink_to(sealed[step.rule.inputs[label]].path)
    area = None
    if step.rule.resumes:
        # A fresh one: what is compared is made from its beginning.
        (area := elsewhere / "work").mkdir()
    job = make_job(step, inputs, elsewhere, area)
    log.parent.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    # Certificates are not valid at any time, nor does a server answer in any other's place.
    variation = None if step.rule.fetches else make_variation(work)
    code = engine.run(step.rule.image, job, work=elsewhere, log=log, variation=variation)
    if code:
        raise make_stage_error(step.rule, code, log)
    return Path(job["out"])


def _find_different(sealed: Sequence[File], rebuilt: Sequence[File]) -> tuple[str, ...]:
    return tuple(sorted({file.path for file in set(sealed) ^ set(rebuilt)}))


def _require_undamaged(artifact: Artifact) -> None:
    damage = find_damage([artifact])
    if damage:
        raise StoreError(
            "the sealed artifact is damaged, so that a rebuild cannot be compared with it",
            on=str(artifact.path),
            why="; ".join(f"{each.path}: {each.what}" for each in damage),
            then=f"python -m pipeline verify {artifact.name}",
        )
    say(f"{artifact.name}: the sealed bytes are those of its manifest; the rebuilt ones are not")
