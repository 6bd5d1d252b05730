"""An artifact's key document, what changed in it and before it, and what follows: `explain`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.artifact.history import Change
from pipeline.artifact.steps import Step

_LONG = 40


def make_explanation(
    step: Step,
    *,
    changes: Mapping[str, Sequence[Change] | None],
    fields: Mapping[str, Mapping[str, str]],
    affected: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Return the key, the document that it is the digest of, and what changed.

    `changes` holds, for the artifact and each that it comes from, how it differs from the rule's
    last build (None: there was none); `fields` the recipe's names of their fields; `affected` what
    is made from them. `changed` is of the artifact alone; `causes` are the changes in it and before
    it that are not just another input's.
    """
    own = changes[step.rule.name]
    return {
        "key": step.key,
        "document": step.document,
        "sealed": step.artifact is not None,
        "built_before": own is not None,
        "changed": [{"field": each.field, "old": each.old, "new": each.new} for each in own or ()],
        "causes": [
            {
                "artifact": name,
                "field": fields[name].get(each.field, each.field),
                "old": each.old,
                "new": each.new,
                "affected": list(affected[name]),
            }
            for name, found in changes.items()
            for each in found or ()
            if not each.field.startswith("inputs.")
        ],
    }


def format_explanation(document: Mapping[str, Any]) -> str:
    """Return the explanation as text."""
    lines = [f"key: {document['key']}", json.dumps(document["document"], indent=1)]
    if not document["built_before"]:
        lines.append("never built")
    elif not document["causes"]:
        lines.append("nothing changed since the last build" if not document["changed"] else "")
    for cause in document["causes"]:
        old, new = _shorten(cause["old"]), _shorten(cause["new"])
        so = f"; so {', '.join(cause['affected'])}" if cause["affected"] else ""
        lines.append(f"{cause['artifact']}: {cause['field']} {old} -> {new}{so}")
    return "\n".join(line for line in lines if line) + "\n"


def _shorten(value: object) -> str:
    text = "(absent)" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONG else f"{text[: _LONG - 3]}..."
