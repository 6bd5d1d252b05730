"""Steps -> sealed artifacts: what is wanted and missing is built, each exactly once."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.artifact.engine import Engine
from pipeline.artifact.manifest import Manifest
from pipeline.artifact.readiness import require_readiness
from pipeline.artifact.rule import Rule
from pipeline.artifact.seal import seal
from pipeline.artifact.steps import Step, find_missing, find_sealed
from pipeline.artifact.store import Artifact, Store
from pipeline.artifact.uses import using
from pipeline.artifact.work_area import open_work_area, remove_work_area
from pipeline.artifact.worker import run_parallel
from pipeline.artifact.workspace import make_workspace, sweep
from pipeline.errors import StageError
from pipeline.log import say


def build(
    steps: Sequence[Step],
    wanted: Sequence[str],
    store: Store,
    engine: Engine,
    *,
    jobs: int = 1,
    explain: Callable[[Step], str] = lambda step: "",
    on_sealed: Callable[[Artifact], object] = lambda artifact: None,
) -> dict[str, Artifact]:
    """Build what is missing, at most `jobs` at a time; return every artifact of the steps that is
    sealed then, by name.

    `explain` says why a step is built; `on_sealed` is told of each artifact that is sealed already
    or as soon as it is, unless there is nothing to build.
    Raises UsageError, HostError or CapacityError before the first stage, StageError when one
    fails; what was sealed until then stays.
    """
    if not find_missing(steps, wanted):
        return find_sealed(steps)
    with using(store, [step.directory for step in steps]):
        # Nothing of these goes away from now on; what went, or came, until now is seen here.
        steps = [replace(step, artifact=store.find(step.key, step.rule.name)) for step in steps]
        missing = find_missing(steps, wanted)
        sealed = find_sealed(steps)
        for artifact in sealed.values():
            on_sealed(artifact)
        require_readiness(missing, store, engine)
        engine.prepare(sorted({step.rule.image for step in missing}))
        sweep(store.workspaces)
        titles = {
            step.rule.name: f"[{number}/{len(missing)}] {step.rule.name}: {explain(step)}"
            for number, step in enumerate(missing, start=1)
        }

        def make(step: Step) -> None:
            _make_once(step, sealed, store, engine)

        def note(step: Step) -> None:
            artifact = store.find(step.key, step.rule.name)
            assert artifact is not None, f"{step.rule.name} was made and is not there"
            sealed[step.rule.name] = artifact
            on_sealed(artifact)

        if jobs > 1:
            run_parallel(missing, make, titles=titles, jobs=jobs, on_done=note)
        else:
            for step in missing:
                say(titles[step.rule.name])
                make(step)
                note(step)
    order = [step.rule.name for step in steps]
    return {name: sealed[name] for name in order if name in sealed}


def _make_once(step: Step, sealed: Mapping[str, Artifact], store: Store, engine: Engine) -> None:
    """Make and seal the artifact, unless another process did while we waited for its lock."""
    rule = step.rule
    with store.lock(step.key, rule.name):
        if store.find(step.key, rule.name):
            say(f"{rule.name}: another process has made it")
            return
        started = time.monotonic()
        with make_workspace(store.workspaces, f"{step.key[:16]}-{rule.name}") as work:
            area = open_work_area(step, store, work=work) if rule.resumes else None
            out = run_stage(step, sealed, store, engine, work=work, area=area)
            seal(
                store,
                out,
                key=step.key,
                name=rule.name,
                manifest=make_manifest(step, sealed, engine),
                seconds=time.monotonic() - started,
            )
        remove_work_area(step, store)


def run_stage(
    step: Step,
    sealed: Mapping[str, Artifact],
    store: Store,
    engine: Engine,
    *,
    work: Path,
    area: Path | None,
) -> Path:
    """Run the step's stage in the work directory; return the directory with what it wrote.

    `area` is the work area of a stage that resumes.
    """
    rule = step.rule
    log = store.log_path(step.key, rule.name)
    log.parent.mkdir(parents=True, exist_ok=True)
    inputs = {label: sealed[name].path for label, name in rule.inputs.items()}
    job = make_job(step, inputs, work, area)
    if code := engine.run(rule.image, job, work=work, log=log):
        raise make_stage_error(rule, code, log)
    return Path(job["out"])


def make_job(
    step: Step, inputs: Mapping[str, Path], work: Path, area: Path | None
) -> dict[str, Any]:
    """Return the job document of the step's stage, whose output directory is made in `work`."""
    out = work / "out"
    out.mkdir()
    return {
        "stage": step.rule.stage,
        "inputs": {label: str(path) for label, path in {**inputs, **step.rule.sources}.items()},
        "options": {**step.document["options"], **step.rule.locations},
        "out": str(out),
        **({"work": str(area)} if area else {}),
        **({"network": True} if step.rule.fetches else {}),
    }


def make_manifest(step: Step, sealed: Mapping[str, Artifact], engine: Engine) -> Manifest:
    """Return the step's manifest, the files still to come."""
    return Manifest(
        files=(),
        document=step.document,
        environment=step.environment,
        source=step.source,
        inputs={
            label: sealed[name].manifest.content_sha256 for label, name in step.rule.inputs.items()
        },
        engine=engine.name,
    )


def make_stage_error(rule: Rule, code: int, log: Path) -> StageError:
    """Return what a stage's exit code means."""
    if code == StageError.exit_code:
        why = "see the error above"
    elif code < 0:
        why = f"signal {-code} ended it" + (": out of memory, it may be" if code == -9 else "")
    else:
        why = f"it ended with code {code}; the log has the trace"
    kept = " but what it goes on from" if rule.resumes else ""
    return StageError(
        f"the stage of {rule.name} failed; nothing was stored{kept}",
        on=f"pipeline.{rule.stage} in image {rule.image}",
        why=why,
        then=f"mend that and run the same command again; log: {log}",
    )
