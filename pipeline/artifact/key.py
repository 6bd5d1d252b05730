"""The key of an artifact: a pure function of everything that can matter to its bytes.

One canonical JSON document (format version, rule, stage, options, input keys, environment digest,
source digest), hashed once. Locations, times, host names and the engine stay out of it.
"""

import ast
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.artifact.rule import Digest, Key, Rule

FORMAT = 1
REPOSITORY = Path(__file__).resolve().parents[2]
# They only talk: what they say is not in any artifact.
_TALK = frozenset({"pipeline/errors.py", "pipeline/log.py"})


def make_canonical_json(document: object) -> bytes:
    """Return the one JSON text of the document: sorted keys, no spaces, UTF-8, no NaN.

    Raises ValueError for NaN and infinities, which JSON lacks.
    """
    return json.dumps(
        document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


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
    return Key(hashlib.sha256(make_canonical_json(document)).hexdigest())


def make_key_documents(
    rules: Sequence[Rule], environments: Mapping[str, Digest]
) -> dict[str, dict[str, Any]]:
    """Return each rule's key document; the rules stand in an order that builds."""
    documents: dict[str, dict[str, Any]] = {}
    for rule in rules:
        documents[rule.name] = make_key_document(
            rule,
            input_keys={label: make_key(documents[name]) for label, name in rule.inputs.items()},
            environment=environments[rule.image],
            source=read_source_digest(rule.stage),
        )
    return documents


@cache
def read_source_digest(stage: str) -> Digest:
    """Return the digest of the source that the stage runs: its module, what that imports of this
    package, directly or not, and `job`, which starts it.

    Finer than the digest of a folder (a change to one stage leaves its neighbours alone), and it
    cannot miss a module in another folder.
    """
    files = _find_imported_files(["pipeline.job", f"pipeline.{stage}"])
    listing = [[path, _hash_file(REPOSITORY / path)] for path in sorted(files - _TALK)]
    return Digest(hashlib.sha256(make_canonical_json(listing)).hexdigest())


def _find_imported_files(modules: Iterable[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        path = waiting.pop().replace(".", "/") + ".py"
        if path not in found and (REPOSITORY / path).is_file():
            found.add(path)
            waiting += _read_imports(REPOSITORY / path)
    return found


def _read_imports(path: Path) -> list[str]:
    """Return the names in this package that the file imports, modules or what lies in them."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [name for name in names if name.startswith("pipeline.")]


def _hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
