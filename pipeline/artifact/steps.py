"""Rules and the store -> steps: the key of each artifact, and whether it is sealed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.artifact.key import make_key, make_key_documents, read_source
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

    @property
    def directory(self) -> str:
        """The name of its directory in the store."""
        return f"{self.key}-{self.rule.name}"

    @property
    def size_bytes(self) -> int:
        """Bytes on disk when sealed, else the estimate."""
        return self.artifact.manifest.size_bytes if self.artifact else self.rule.estimated_bytes


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
    names = close_over_inputs(rules, wanted)
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


def close_over_inputs(rules: Sequence[Rule], wanted: Sequence[str]) -> set[str]:
    """Return the names of the wanted artifacts and of everything they come from.

    Raises UsageError for a name that no rule makes.
    """
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


def find_sealed(steps: Iterable[Step]) -> dict[str, Artifact]:
    """Return the artifacts that are sealed, by name."""
    return {step.rule.name: step.artifact for step in steps if step.artifact}


def find_dependents(rules: Iterable[Rule], name: str) -> list[str]:
    """Return the artifacts that are made from the named one, directly or not, in order."""
    names = [name]
    for rule in rules:
        if set(rule.inputs.values()) & set(names):
            names.append(rule.name)
    return names[1:]
