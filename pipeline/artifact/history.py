"""What was built before, and so why something is built now."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.artifact.links import read_links
from pipeline.artifact.quarantine import find_note
from pipeline.artifact.steps import Step
from pipeline.artifact.store import Store


@dataclass(frozen=True, kw_only=True)
class Change:
    """A field of an artifact's key document, or of what its digests are of, with two values."""

    artifact: str
    field: str
    old: Any
    new: Any


class History:
    """What was built before: for each rule, what this recipe's link points at, else what was
    sealed last."""

    def __init__(self, store: Store, recipe: str) -> None:
        artifacts, _ = store.read_all()
        self._store = store
        self._last = {each.name: each.manifest for each in artifacts}
        linked = read_links(store.out / recipe)
        self._last |= {
            each.name: each.manifest
            for each in artifacts
            if linked.get(each.name) == each.path.name
        }

    def find_changes(self, step: Step) -> list[Change] | None:
        """Return how the step differs from the rule's last build; None when there was none."""
        last = self._last.get(step.rule.name)
        if last is None:
            return None
        new = {**step.document, "environment": step.environment, "source": step.source}
        old = {**last.document, "environment": last.environment, "source": last.source}
        return [
            Change(artifact=step.rule.name, field=field, old=before, new=after)
            for field, before, after in _compare(new, old)
        ]

    def explain_build(self, step: Step, missing: Iterable[str]) -> str:
        """Return why the step, which is not sealed, is built."""
        if found_at := find_note(self._store, step.key, step.rule.name):
            return f"found damaged at {found_at}, in quarantine"
        changes = self.find_changes(step)
        if changes is None:
            return "never built"
        fields = [step.rule.fields.get(name, name) for name in (each.field for each in changes)]
        if "stage" in fields:
            return "made by another stage now"
        own = [field for field in fields if not field.startswith("inputs.")]
        stale = [name for name in step.rule.inputs.values() if name in set(missing)]
        if not own and stale:
            return f"its input changes: {', '.join(stale)}"
        return f"changed: {', '.join(own or fields)}" if changes else "removed since it was built"


def _compare(new: Mapping[str, Any], old: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (dotted field, old value, new value) of each field that differs."""
    changes: list[tuple[str, Any, Any]] = []
    for name in sorted(new.keys() | old.keys()):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changes += [(f"{name}.{field}", a, b) for field, a, b in _compare(after, before)]
        elif before != after:
            changes.append((name, before, after))
    return changes
