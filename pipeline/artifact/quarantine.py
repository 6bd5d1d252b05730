"""Quarantine: a damaged artifact is moved out of reach, with a note of what was found.

It is never used again and never written over; `plan` and `build` say why they build anew.
"""

import datetime
import json
from collections.abc import Sequence
from itertools import count, groupby
from pathlib import Path

from pipeline.artifact.rule import Key
from pipeline.artifact.store import Damage, Store


def quarantine(store: Store, damage: Sequence[Damage]) -> dict[str, Path]:
    """Move each damaged artifact away; return where to, by its directory's name."""
    moved = {}
    for name, found in groupby(sorted(damage, key=lambda each: each.artifact), _artifact_of):
        target = _move(store, name, list(found))
        if target is not None:
            moved[name] = target
    return moved


def find_note(store: Store, key: Key, name: str) -> str | None:
    """Return when the key's artifact was last found damaged, or None."""
    times = []
    for path in _quarantine(store).glob(f"{key}-{name}.*.json"):
        try:
            times.append(str(json.loads(path.read_text(encoding="utf-8"))["found_at"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return max(times, default=None)


def _move(store: Store, name: str, damage: list[Damage]) -> Path | None:
    """Return the new place; None when another process was faster."""
    source, target = store.root / name, _find_free(_quarantine(store), name)
    note = {
        "found_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "damage": [{"path": each.path, "what": each.what} for each in damage],
    }
    target.parent.mkdir(exist_ok=True)
    path = target.with_name(f"{target.name}.json")
    path.write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    try:
        # To move a directory is to write its "..".
        source.chmod(0o755)
        source.rename(target)
    except FileNotFoundError:
        path.unlink()
        return None
    target.chmod(0o555)
    return target


def _find_free(quarantine: Path, name: str) -> Path:
    return next(
        path for number in count(1) if not (path := quarantine / f"{name}.{number}").exists()
    )


def _artifact_of(damage: Damage) -> str:
    return damage.artifact


def _quarantine(store: Store) -> Path:
    return store.root / ".quarantine"
