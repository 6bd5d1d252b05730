"""What nothing reaches any more, for `gc`."""

import datetime
from pathlib import Path

from pipeline.artifact.gc import Garbage
from pipeline.report.table import format_age, format_bytes, format_table, shorten_digest


def format_garbage(garbage: Garbage, now: datetime.datetime, *, deleted: bool) -> str:
    """Return what was, or would be, removed as a table and a sum."""
    rows = [
        (
            artifact.name,
            format_bytes(artifact.manifest.size_bytes),
            format_age(artifact.sealed_at, now),
            shorten_digest(artifact.key),
            "not needed for what the recipe asks for"
            if artifact.path.name in garbage.dispensable
            else "no recipe or link reaches it",
        )
        for artifact in garbage.artifacts
    ]
    logs = [each for each in garbage.leftovers if each[0].parent.name == ".logs"]
    rows += [
        (_describe(path), format_bytes(size_bytes), "-", shorten_digest(path.name), why)
        for path, why, size_bytes in garbage.leftovers
        if path.parent.name != ".logs"
    ]
    if logs:
        size_bytes = sum(size_bytes for _, _, size_bytes in logs)
        rows.append((f"{len(logs)} logs", format_bytes(size_bytes), "-", "-", logs[0][1]))
    if not rows:
        return "nothing to remove\n"
    table = format_table(("what", "bytes", "sealed", "key", "why"), rows)
    verb = "removed" if deleted else "would go; `gc --delete` removes that"
    return f"{table}\n{format_bytes(garbage.size_bytes)} bytes {verb}\n"


def _describe(path: Path) -> str:
    return f"{path.parent.name}/{path.name.partition('-')[2] or path.name}"
