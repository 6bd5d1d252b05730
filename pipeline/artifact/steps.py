"""Rules and the store -> steps: the key of each artifact, whether it is sealed, and why not."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.artifact.key import make_key, make_key_documents, read_source
from pipeline.artifact.links import read_links
from pipeline.artifact.quarantine import find_note
from pipeline.artifact.rule import Digest, Key, Rule
from pipeline.artifact.store import Artifact, Store
from pipeline.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Step:
    """One artifact of a plan: its rule, key, and the sealed artifact when there is one.

    `document` is the key document; `environment` and `source` are the documents behind the two
    digests of the same names in it.
    """

    rule: Rule
    key: Key
    document: Mapping[str, Any]
    environment: Mapping[str, Any]
    source: Mapping[str, Digest]
    artifact: Artifact | None
    why: str = ""

    @property
    def directory(self) -> str:
        """The name of its directory in the store."""
        return f"{self.key}-{self.rule.name}"

    @property
    def size_bytes(self) -> int:
        """Bytes on disk when sealed, else the estimate."""
        return self.artifact.manifest.size_bytes if self.artifact else self.rule.estimated_bytes


@dataclass(frozen=True, kw_only=True)
class Change:
    """A field of an artifact's key document, or of what its digests are of, with two values."""

    artifact: str
    field: str
    old: Any
    new: Any


def make_steps(
    rules: Sequence[Rule],
    wanted: Sequence[str],
    store: Store,
    environments: Mapping[str, Mapping[str, Any]],
) -> list[Step]:
    """Return the wanted artifacts and everything they come from, in an order that builds.

    `environments` holds the document of each image. Raises UsageError for a name that no rule
    makes, StoreError for a damaged artifact.
    """
    names = _close_over_inputs(rules, wanted)
    documents = make_key_documents(rules, environments)
    steps = []
    for rule in rules:
        if rule.name in names:
            key = make_key(documents[rule.name])
            steps.append(
                Step(
                    rule=rule,
                    key=key,
                    document=documents[rule.name],
                    environment=environments[rule.image],
                    source=read_source(rule.stage),
                    artifact=store.find(key, rule.name),
                )
            )
    return steps


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


def find_missing(steps: Sequence[Step], wanted: Sequence[str]) -> list[Step]:
    """Return the steps to build: wanted or an input of one to build, and not sealed."""
    needed = set(wanted)
    missing = []
    for step in reversed(steps):
        if step.rule.name in needed and step.artifact is None:
            needed |= set(step.rule.inputs.values())
            missing.append(step)
    return missing[::-1]


def find_dependents(rules: Iterable[Rule], name: str) -> list[str]:
    """Return the artifacts that are made from the named one, directly or not, in order."""
    names = [name]
    for rule in rules:
        if set(rule.inputs.values()) & set(names):
            names.append(rule.name)
    return names[1:]


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
