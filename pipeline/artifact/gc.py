"""`gc`: what nothing reaches any more is found, shown, and, when asked for, removed.

Reached is what the recipes' keys name, what a link below `out/` points at, what a running build or
reader needs, and everything that those were made from. Removal is a rename into a work directory
under the lock that users enter by, so that it is short and a kill in the middle loses nothing else.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.artifact.file_lock import is_free
from pipeline.artifact.links import read_links
from pipeline.artifact.store import Artifact, Store
from pipeline.artifact.uses import reading_uses
from pipeline.artifact.workspace import find_abandoned, make_workspace


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """What could go: artifacts, oldest first, and other leftovers, each with why and its bytes.

    Of the artifacts, `dispensable` (directories' names) are reached and yet not needed.
    """

    artifacts: tuple[Artifact, ...]
    leftovers: tuple[tuple[Path, str, int], ...]
    dispensable: frozenset[str] = frozenset()

    @property
    def size_bytes(self) -> int:
        return sum(each.manifest.size_bytes for each in self.artifacts) + sum(
            size_bytes for _, _, size_bytes in self.leftovers
        )


def find_garbage(
    store: Store, planned: Collection[str], dispensable: Collection[str] = ()
) -> Garbage:
    """Return what nothing reaches. `planned` holds the directories' names that recipes ask for;
    `dispensable` those that may go although something was made from them."""
    with reading_uses(store) as used:
        return _find(store, set(planned), frozenset(dispensable), used)


def collect(store: Store, planned: Collection[str], dispensable: Collection[str] = ()) -> Garbage:
    """Remove what nothing reaches at this moment; return it."""
    with make_workspace(store.workspaces, "gc") as trash:
        with reading_uses(store) as used:
            garbage = _find(store, set(planned), frozenset(dispensable), used)
            for path in [
                *(each.path for each in garbage.artifacts),
                *(path for path, _, _ in garbage.leftovers),
            ]:
                _move(path, trash)
        _remove_locks(store)
        _remove_dangling_links(store)
    return garbage


def _find(store: Store, planned: set[str], dispensable: frozenset[str], used: set[str]) -> Garbage:
    artifacts, _ = store.read_all()
    linked = {
        target
        for directory in store.out.glob("*")
        if directory.is_dir()
        for target in read_links(directory).values()
    }
    needed = _close_over_inputs(artifacts, used)
    kept = (_close_over_inputs(artifacts, planned | linked) - dispensable) | needed
    return Garbage(
        artifacts=tuple(each for each in artifacts if each.path.name not in kept),
        leftovers=tuple(
            (path, why, _measure_bytes(path)) for path, why in _find_leftovers(store, kept)
        ),
        dispensable=dispensable,
    )


def _close_over_inputs(artifacts: Iterable[Artifact], names: set[str]) -> set[str]:
    """Return the names and those of everything that they were made from."""
    by_key = {artifact.key: artifact for artifact in artifacts}
    found, waiting = set(names), [name.partition("-")[0] for name in names]
    while waiting:
        artifact = by_key.get(waiting.pop())  # type: ignore[call-overload]
        for key in artifact.manifest.document["inputs"].values() if artifact else ():
            if key in by_key and by_key[key].path.name not in found:
                found.add(by_key[key].path.name)
                waiting.append(key)
    return found


def _find_leftovers(store: Store, kept: set[str]) -> list[tuple[Path, str]]:
    found = [(path, "its maker died") for path in find_abandoned(store.workspaces)]
    for name, why in ((".quarantine", "found damaged"), (".rebuilt", "built with other bytes")):
        found += [(path, why) for path in sorted((store.root / name).glob("*"))]
    found += [
        (path, "of a build that ended early")
        for path in sorted(store.work_areas.glob("*"))
        if (path.name not in kept or (store.root / path.name).is_dir())
        and not _is_being_made(store, path.name[:64])
    ]
    found += [
        (path, "their artifacts are gone, or go")
        for path in sorted((store.root / ".logs").glob("*"))
        if path.name[:64] not in {name[:64] for name in kept}
        and not _is_being_made(store, path.name[:64])
    ]
    return found


def _is_being_made(store: Store, key: str) -> bool:
    lock = store.root / ".locks" / key
    return lock.exists() and not is_free(lock)


def _move(path: Path, trash: Path) -> None:
    target = trash / f"{len(list(trash.iterdir()))}"
    if path.is_dir():
        # To move a directory is to write its "..".
        path.chmod(0o755)
    try:
        path.rename(target)
    except FileNotFoundError:
        return


def _remove_locks(store: Store) -> None:
    """Remove the lock files of keys that are neither sealed nor being made."""
    sealed = {path.name[:64] for path in store.root.glob("*-*")}
    for path in (store.root / ".locks").glob("*"):
        if len(path.name) == 64 and path.name not in sealed and is_free(path):
            path.unlink(missing_ok=True)


def _remove_dangling_links(store: Store) -> None:
    for path in store.out.glob("*/*"):
        if path.is_symlink() and not path.exists():
            path.unlink(missing_ok=True)


def _measure_bytes(path: Path) -> int:
    """Return the bytes of a file, or of all files below a directory."""
    if not path.is_dir():
        return path.lstat().st_size
    return sum(each.lstat().st_size for each in path.rglob("*") if not each.is_dir())
