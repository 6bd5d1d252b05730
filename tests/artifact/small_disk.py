"""Scenes on a disk of their own: `python -m tests.artifact.small_disk SCENE DIRECTORY BYTES`.

A tmpfs of that size is mounted on the directory in a mount namespace that ends with this process,
so that nothing of it is left, whatever happens. Each scene writes what came of it as JSON.
"""

import ctypes
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.artifact import seal
from pipeline.artifact.store import Store, open_store
from pipeline.artifact.verify import find_damage
from pipeline.errors import TristillError, explain_os_error
from tests.artifact.small_build import build_small, make_wide_rules, read_bytes

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000
_MS_RDONLY, _MS_REMOUNT, _MS_REC, _MS_PRIVATE = 1, 32, 16384, 1 << 18
CANNOT = 77
"""Exit code: this machine lets us have no disk of our own."""


def _build(store: Store, rows: int = 0) -> str:
    """Build; return the error's first line, or "built"."""
    rules = make_wide_rules(rows)[:1] if rows else ()
    try:
        build_small(store, rules, [rule.name for rule in rules] or ["rows"])
    except TristillError as error:
        return f"{error.exit_code} {error.what}"
    except OSError as error:
        explained = explain_os_error(error)
        return f"{explained.exit_code} {explained.what}" if explained else repr(error)
    return "built"


def _list(store: Store) -> list[str]:
    """Return what lies in the store and in its work area."""
    return sorted(path.name for path in [*store.root.glob("*-*"), *store.workspaces.glob("*")])


def fill_while_a_stage_runs(store: Store) -> dict[str, Any]:
    """The stage's output is larger than the disk; a small one is built afterwards."""
    told, left = _build(store, rows=200_000), _list(store)
    return {"told": told, "left": left, "again": _build(store), "bytes": _digest(store)}


def fill_while_sealing(store: Store) -> dict[str, Any]:
    """The disk is full when the manifest is to be written; then there is room again."""
    filler = store.root / "filler"

    def fill(point: str) -> None:
        if point == "output hashed":
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while file.write(b"x" * 4096):
                    pass

    reach, seal.reach = seal.reach, fill
    told, left = _build(store), _list(store)
    seal.reach = reach
    filler.unlink()
    return {"told": told, "left": left, "again": _build(store), "bytes": _digest(store)}


def use_read_only(store: Store) -> dict[str, Any]:
    """A sealed store is mounted read-only: what is there can be used, and nothing can be made."""
    _build(store)
    _mount(store.root.parent, _MS_REMOUNT | _MS_RDONLY, b"")
    artifacts, _ = store.read_all()
    return {
        "nothing to build": _build(open_store(store.root)),
        "something to build": _build(store, rows=5),
        "damage": [vars(each) for each in find_damage(artifacts)],
        "artifacts": [artifact.name for artifact in artifacts],
    }


def _digest(store: Store) -> dict[str, str]:
    return {name: content.hex() for name, content in read_bytes(store).items()}


def _mount(directory: Path, flags: int, data: bytes) -> None:
    if _LIBC.mount(b"tmpfs", bytes(directory), b"tmpfs", flags, data):
        raise OSError(ctypes.get_errno(), "mount")


def _enter_namespace() -> None:
    """Mounts from now on are this process's own."""
    user, group = os.getuid(), os.getgid()
    if _LIBC.unshare(_CLONE_NEWNS if user == 0 else _CLONE_NEWNS | _CLONE_NEWUSER):
        raise OSError(ctypes.get_errno(), "unshare")
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    if _LIBC.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "mount")


SCENES = {
    scene.__name__: scene for scene in (fill_while_a_stage_runs, fill_while_sealing, use_read_only)
}


def main(argv: Sequence[str]) -> int:
    """Play the scene on a disk of its own."""
    name, directory, size_bytes = argv
    try:
        _enter_namespace()
        _mount(Path(directory), 0, f"size={size_bytes}".encode())
    except OSError:
        return CANNOT
    sys.stdout.write(json.dumps(SCENES[name](open_store(Path(directory, "store")))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
