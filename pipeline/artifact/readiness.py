"""Refuse early: what a build will need, looked at before its first stage."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.artifact.engine import Engine
from pipeline.artifact.steps import Step
from pipeline.artifact.store import Store
from pipeline.artifact.writability import find_obstacle
from pipeline.errors import CapacityError, HostError, UsageError

_NAMED_TERMS = 4


def require_readiness(missing: Sequence[Step], store: Store, engine: Engine) -> None:
    """Raise what would stop the build later on.

    UsageError: an input of the user's is not there. HostError: the store, the links or the
    environments cannot be written. CapacityError: the disk is too small, with the arithmetic.
    """
    for step in missing:
        _require_source(step)
    envs_dir, envs_bytes = engine.count_missing_bytes(sorted({step.rule.image for step in missing}))
    for directory in (store.root, store.out, *([envs_dir] if envs_bytes else [])):
        _require_writable(directory)
    terms = {step.rule.name: step.rule.needed_bytes for step in missing}
    if not envs_bytes:
        _require_space(store.root, terms)
    elif store.root.stat().st_dev == envs_dir.stat().st_dev:
        _require_space(store.root, {**terms, "the environments": envs_bytes})
    else:
        _require_space(store.root, terms)
        _require_space(envs_dir, {"the environments": envs_bytes})


def _require_source(step: Step) -> None:
    for source in step.rule.sources.values():
        if not source.exists():
            raise UsageError(
                f"an input of {step.rule.name} is not there",
                on=str(source),
                why="the recipe names it, and nothing lies there",
                then="mend the path in the recipe, or put the file there",
            )


def _require_writable(directory: Path) -> None:
    if (why := find_obstacle(directory)) is not None:
        raise HostError(
            "this build must write where it cannot",
            on=str(directory),
            why=why,
            then="mend its permissions, or name another store with --store DIR"
            " (environments: TRISTILL_ENVS)",
        )


def _require_space(directory: Path, terms: dict[str, int]) -> None:
    needed, free = sum(terms.values()), shutil.disk_usage(directory).free
    if needed > free:
        raise CapacityError(
            "not enough disk space for this build",
            on=str(directory),
            why=f"{_format_sum(terms)} = {needed:,} bytes needed, {free:,} free:"
            f" {needed - free:,} too few",
            then="free space (`python -m pipeline gc` shows what could go), or name a store on a"
            " larger disk with --store DIR",
        )


def _format_sum(terms: dict[str, int]) -> str:
    """Return the sum with its largest terms named."""
    named = sorted(terms, key=lambda name: -terms[name])[:_NAMED_TERMS]
    rest = sum(size for name, size in terms.items() if name not in named)
    shown = [f"{name} {terms[name]:,}" for name in named]
    return " + ".join(shown + ([f"{len(terms) - len(named)} more {rest:,}"] if rest else []))
