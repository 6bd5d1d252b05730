"""`verify`: every byte of the named artifacts, or of all; what is damaged goes to quarantine."""

import argparse
import sys
from collections.abc import Sequence

from pipeline.artifact.quarantine import quarantine
from pipeline.artifact.store import Damage, Store, open_store
from pipeline.artifact.verify import find_damage
from pipeline.artifact.writability import find_obstacle
from pipeline.errors import StoreError, UsageError
from pipeline.log import say
from pipeline.report.table import dump


def run(arguments: argparse.Namespace) -> None:
    """Hash every file of the named artifacts, or of all; quarantine those that are damaged."""
    store = open_store(arguments.store)
    found, unreadable = store.read_all()
    artifacts = [each for each in found if _is_named(each.path.name, arguments.artifact)]
    damage = [each for each in unreadable if _is_named(each.artifact, arguments.artifact)]
    if arguments.artifact and not artifacts and not damage:
        raise UsageError(
            "there is nothing to verify",
            on=", ".join(arguments.artifact),
            why="no sealed artifact has that name",
            then="`python -m pipeline show` lists what there is",
        )
    damage += find_damage(artifacts)
    size_bytes = sum(each.manifest.size_bytes for each in artifacts)
    say(f"hashed {len(artifacts)} artifacts, {size_bytes:,} bytes; {len(damage)} files differ")
    error = _set_aside(store, damage) if damage else None
    if arguments.json:
        sys.stdout.write(dump({"damaged": [vars(each) for each in damage]}))
    if error:
        raise error


def preview(arguments: argparse.Namespace) -> None:
    """Say how much would be hashed; nothing is moved to quarantine."""
    found, unreadable = open_store(arguments.store).read_all()
    artifacts = [each for each in found if _is_named(each.path.name, arguments.artifact)]
    size_bytes = sum(each.manifest.size_bytes for each in artifacts)
    say(f"{len(artifacts)} artifacts, {size_bytes:,} bytes, would be hashed")
    for each in unreadable:
        say(f"without a manifest that can be read: {each.artifact}")


def _set_aside(store: Store, damage: Sequence[Damage]) -> StoreError:
    """Move what is damaged to quarantine; return the error that says so."""
    why = "; ".join(f"{each.artifact}/{each.path}: {each.what}" for each in damage)
    if (obstacle := find_obstacle(store.root)) is not None:
        return StoreError(
            "the store is damaged",
            on=str(store.root),
            why=why,
            then=f"make the store writable ({obstacle.lower()}) and run the same command again",
        )
    moved = quarantine(store, damage)
    for name, place in moved.items():
        say(f"moved to quarantine: {name} -> {place}")
    return StoreError(
        "the store was damaged; what is damaged lies in quarantine now",
        on=", ".join(moved) or str(store.root),
        why=why,
        then="`python -m pipeline build` makes it anew; `python -m pipeline rebuild` tells whether"
        " what was made from it is sound",
    )


def _is_named(directory: str, names: Sequence[str]) -> bool:
    """Return whether an artifact is meant, by its name or its directory; no names mean all."""
    return not names or directory in names or directory.partition("-")[2] in names


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", nargs="*", metavar="ARTIFACT")
