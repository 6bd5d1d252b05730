"""The key of an artifact: a pure function of everything that can matter to its bytes.

One canonical JSON document (format version, rule, stage, options, input keys, environment digest,
source digest), hashed once. Locations, times, host names and the engine stay out of it.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.artifact.rule import Digest, Key, Rule

FORMAT = 1
REPOSITORY = Path(__file__).resolve().parents[2]
# They only talk: what they say, and what they import to say it, is not in any artifact.
_TALK = frozenset(
    {
        "pipeline/errors.py",
        "pipeline/log.py",
        "pipeline/sft/memory.py",
        "pipeline/sft/progress.py",
        "pipeline/sft/reporting.py",
        "pipeline/sft/step_line.py",
    }
)
# Reading every module's syntax tree would take longer than all the rest of a build of nothing.
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(pipeline(?:\.\w+)*)[ \t]+import[ \t]+(\([^)]*\)|.*)"
    r"|import[ \t]+(pipeline(?:\.\w+)+))",
    re.MULTILINE,
)
_NAME = re.compile(r"\w+")


def make_canonical_json(document: object) -> bytes:
    """Return the one JSON text of the document: sorted keys, no spaces, UTF-8, no NaN.

    Raises ValueError for NaN, infinities and lone surrogates, which JSON or UTF-8 lacks, TypeError
    for a name that is no text (1 and "1" would be one) and for what JSON has no form for.
    """
    _require_text_names(document)
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def _require_text_names(value: object) -> None:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not isinstance(name, str):
                raise TypeError(f"{name!r} is no name in JSON")
            _require_text_names(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _require_text_names(inner)


def make_key_document(
    rule: Rule, *, input_keys: Mapping[str, Key], environment: Digest, source: Digest
) -> dict[str, Any]:
    """Return the document whose digest is the artifact's key."""
    return {
        "format": FORMAT,
        "rule": rule.name,
        "stage": rule.stage,
        "options": {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in rule.options.items()
        },
        "inputs": dict(input_keys),
        "environment": environment,
        "source": source,
    }


def make_key(document: Mapping[str, Any]) -> Key:
    """Return the key of a key document."""
    return Key(make_digest(document))


def make_digest(document: object) -> Digest:
    """Return the sha256 of the document's canonical JSON."""
    return Digest(hashlib.sha256(make_canonical_json(document)).hexdigest())


def make_key_documents(
    rules: Sequence[Rule], environments: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return each rule's key document; the rules stand in an order that builds.

    `environments` holds, for each image, the document of everything that pins it.
    """
    digests = {image: make_digest(document) for image, document in environments.items()}
    documents: dict[str, dict[str, Any]] = {}
    for rule in rules:
        documents[rule.name] = make_key_document(
            rule,
            input_keys={label: make_key(documents[name]) for label, name in rule.inputs.items()},
            environment=digests[rule.image],
            source=make_digest(read_source(rule.stage)),
        )
    return documents


@cache
def read_source(stage: str) -> dict[str, Digest]:
    """Return the sha256 of each file that the stage runs, by path: its module, what that imports
    of this package, directly or not, and `job`, which starts it.

    Finer than the digest of a folder (a change to one stage leaves its neighbours alone), and it
    cannot miss a module in another folder.
    """
    found: dict[str, Digest] = {}
    waiting = ["pipeline.job", f"pipeline.{stage}"]
    while waiting:
        path = waiting.pop().replace(".", "/") + ".py"
        if path not in found and path not in _TALK and (REPOSITORY / path).is_file():
            found[path], imported = _read_module(REPOSITORY / path)
            waiting += imported
    return {path: found[path] for path in sorted(found)}


@cache
def _read_module(path: Path) -> tuple[Digest, tuple[str, ...]]:
    """Return the file's sha256 and the names in this package that it imports, be they modules or
    what lies in them. A line of a text that looks like an import counts as one."""
    text = path.read_bytes()
    names: list[str] = []
    for match in _IMPORT.finditer(text.decode("utf-8")):
        module, listed, plain = match.groups()
        if module:
            names += [module, *(f"{module}.{name}" for name in _NAME.findall(listed))]
        else:
            names.append(plain)
    return Digest(hashlib.sha256(text).hexdigest()), tuple(names)
