"""Rules -> sealed artifacts: what is wanted and missing is built, in order, each exactly once."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact.engine import Engine
from pipeline.artifact.key import make_key, make_key_documents
from pipeline.artifact.rule import Digest, Key, Rule
from pipeline.artifact.store import Artifact, Store
from pipeline.errors import CapacityError, StageError, UsageError
from pipeline.log import say


@dataclass(frozen=True, kw_only=True)
class Step:
    """One artifact of a plan: its rule, key, and the sealed artifact when there is one."""

    rule: Rule
    key: Key
    document: Mapping[str, Any]
    artifact: Artifact | None
    why: str

    @property
    def size_bytes(self) -> int:
        """Bytes on disk when sealed, else the estimate."""
        return self.artifact.manifest.size_bytes if self.artifact else self.rule.estimated_bytes


def make_steps(
    rules: Sequence[Rule],
    wanted: Sequence[str],
    store: Store,
    environments: Mapping[str, Digest],
) -> list[Step]:
    """Return the wanted artifacts and everything they come from, in an order that builds.

    Raises UsageError for a name that no rule makes, StoreError for a damaged artifact.
    """
    documents = make_key_documents(rules, environments)
    names = _close_over_inputs(rules, wanted)
    steps: dict[str, Step] = {}
    for rule in rules:
        if rule.name in names:
            key = make_key(documents[rule.name])
            artifact = store.find(key, rule.name)
            steps[rule.name] = Step(
                rule=rule,
                key=key,
                document=documents[rule.name],
                artifact=artifact,
                why="" if artifact else _explain_build(rule, documents[rule.name], steps, store),
            )
    return list(steps.values())


def _close_over_inputs(rules: Sequence[Rule], wanted: Sequence[str]) -> set[str]:
    known = [rule.name for rule in rules]
    for name in wanted:
        if name not in known:
            raise UsageError(
                "no rule makes this artifact",
                on=name,
                why=f"the recipe's artifacts are {', '.join(known)}",
                then="name one of them; `python -m pipeline plan` lists them with their state",
            )
    names = set(wanted)
    for rule in reversed(rules):
        if rule.name in names:
            names |= set(rule.inputs.values())
    return names


def _explain_build(
    rule: Rule, document: Mapping[str, Any], steps: Mapping[str, Step], store: Store
) -> str:
    last = find_last_document(store, rule.name)
    if last is None:
        return "never built"
    changed = [field for field, _, _ in find_changes(document, last)]
    if "stage" in changed:
        return "made by another stage now"
    own = [field for field in changed if not field.startswith("inputs.")]
    stale = [name for name in rule.inputs.values() if steps[name].artifact is None]
    if not own and stale:
        return f"its input changes: {', '.join(stale)}"
    return f"changed: {', '.join(own or changed)}" if changed else "removed since it was built"


def find_last_document(store: Store, name: str) -> Mapping[str, Any] | None:
    """Return the key document of the rule's artifact that was sealed last, or None."""
    artifacts, _ = store.read_all()
    found = [artifact for artifact in artifacts if artifact.name == name]
    return found[-1].manifest.document if found else None


def find_changes(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (dotted field, old value, new value) of each field that differs."""
    changes: list[tuple[str, Any, Any]] = []
    for name in sorted(new.keys() | old.keys()):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            changes += [(f"{name}.{field}", a, b) for field, a, b in find_changes(after, before)]
        elif before != after:
            changes.append((name, before, after))
    return changes


def find_missing(steps: Sequence[Step], wanted: Sequence[str]) -> list[Step]:
    """Return the steps to build: wanted or an input of one to build, and not sealed."""
    needed = set(wanted)
    missing = []
    for step in reversed(steps):
        if step.rule.name in needed and step.artifact is None:
            needed |= set(step.rule.inputs.values())
            missing.append(step)
    return missing[::-1]


def build(
    steps: Sequence[Step], wanted: Sequence[str], store: Store, engine: Engine
) -> dict[str, Artifact]:
    """Build what is missing; return every artifact of the steps that is sealed then, by name.

    Raises CapacityError or HostError before the first stage, StageError when one fails; what was
    sealed until then stays.
    """
    sealed = {step.rule.name: step.artifact for step in steps if step.artifact}
    missing = find_missing(steps, wanted)
    if not missing:
        say(f"nothing to build: {', '.join(wanted)} and all they come from are sealed")
        return sealed
    _check_space(missing, store)
    engine.prepare(sorted({step.rule.image for step in missing}))
    for number, step in enumerate(missing, start=1):
        say(f"[{number}/{len(missing)}] {step.rule.name}: {step.why}")
        with store.lock(step.key, step.rule.name):
            artifact = store.find(step.key, step.rule.name)
            sealed[step.rule.name] = artifact or _make(step, sealed, store, engine)
    return sealed


def _make(step: Step, sealed: Mapping[str, Artifact], store: Store, engine: Engine) -> Artifact:
    """Run the stage in the dark and seal what it wrote. The caller holds the key's lock."""
    rule = step.rule
    started = time.monotonic()
    with store.workspace(step.key, rule.name) as work:
        out = work / "out"
        out.mkdir()
        log = store.log_path(step.key, rule.name)
        log.parent.mkdir(parents=True, exist_ok=True)
        code = engine.run(rule.image, _make_job(step, sealed, out), work=work, log=log)
        if code:
            raise _stage_failed(rule, code, log)
        return store.seal(
            out,
            key=step.key,
            name=rule.name,
            document=dict(step.document),
            engine=engine.name,
            seconds=time.monotonic() - started,
        )


def _make_job(step: Step, sealed: Mapping[str, Artifact], out: Path) -> dict[str, Any]:
    inputs = {label: str(sealed[name].path) for label, name in step.rule.inputs.items()}
    if step.rule.source is not None:
        inputs["source"] = str(step.rule.source)
    return {
        "stage": step.rule.stage,
        "inputs": inputs,
        "options": {**step.document["options"], **step.rule.locations},
        "out": str(out),
    }


def _stage_failed(rule: Rule, code: int, log: Path) -> StageError:
    if code == StageError.exit_code:
        why = "see the error above"
    elif code < 0:
        why = f"signal {-code} ended it" + (": out of memory, it may be" if code == -9 else "")
    else:
        why = f"it ended with code {code}; the log has the trace"
    return StageError(
        f"the stage of {rule.name} failed; nothing was stored",
        on=f"pipeline.{rule.stage} in image {rule.image}",
        why=why,
        then=f"mend that and run the same command again; log: {log}",
    )


def _check_space(missing: Sequence[Step], store: Store) -> None:
    needed = sum(step.rule.estimated_bytes for step in missing)
    free = shutil.disk_usage(store.root).free
    if needed > free:
        raise CapacityError(
            "not enough disk space for this build",
            on=str(store.root),
            why=f"{len(missing)} artifacts need about {needed:,} bytes; {free:,} are free",
            then="free space, or name a store on a larger disk with --store DIR",
        )
