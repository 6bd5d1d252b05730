"""The virtual environments and the store: what is whole, what fits, what can be written."""

import os
from pathlib import Path

from pipeline.artifact.file_lock import is_free
from pipeline.artifact.store import Store
from pipeline.doctor.finding import Finding, ok, problem, show_size, warning
from pipeline.doctor.machine import find_existing, is_writable
from pipeline.doctor.situation import Environments, Needs, Place, Situation
from pipeline.engine import llama, venv
from pipeline.engine.environment import read_envs_dir
from pipeline.engine.image import IMAGES

# The largest environment, of torch and its like, has about 80,000.
_FILES_PER_ENVIRONMENT = 90_000
_FILES_OF_A_BUILD = 2_000


def read_environments(needs: Needs, *, interpreter: str) -> Environments:
    """Return the state of the environments that the recipe's stages run in."""
    directory = read_envs_dir()
    images = tuple(name for name in needs.images if not IMAGES[name].only_in_containers)
    if not interpreter:
        # Their names hold the interpreter's version.
        needed = sum(IMAGES[name].installed_bytes for name in images)
        return Environments(
            directory=directory,
            whole=(),
            missing=images,
            needed_bytes=needed,
            compiled=False,
        )
    whole = tuple(
        name for name in images if venv.make_environment(IMAGES[name]).is_complete(directory)
    )
    return Environments(
        directory=directory,
        whole=whole,
        missing=tuple(name for name in images if name not in whole),
        needed_bytes=venv.count_missing_bytes(images, envs_dir=directory),
        compiled=llama.make_environment().is_complete(directory),
    )


def read_place(directory: Path) -> Place:
    """Return the file system of the directory, without writing to it."""
    path = find_existing(directory)
    status = os.statvfs(path)
    return Place(
        path=path,
        exists=path == directory,
        writable=is_writable(path),
        device=path.stat().st_dev,
        free_bytes=status.f_bavail * status.f_frsize,
        free_files=status.f_favail if status.f_files else None,
        locks=_try_locks(path),
    )


def _try_locks(path: Path) -> bool | None:
    """Return whether locks keep others out: two of this process, on the directory itself. None:
    this file system gives none without a file to write, as NFS does."""
    try:
        return is_free(path)
    except OSError:
        return None


def read_store_place(store: Store) -> Place:
    """Return the file system of the store."""
    return read_place(store.root)


def check_environments(seen: Situation) -> Finding:
    """The environments are whole, or can be made."""
    environments, place = seen.environments, seen.environments_place
    where = f"in {environments.directory}"
    if not environments.missing:
        return ok("environments", what=f"{', '.join(environments.whole)} are whole {where}")
    needed, terms = environments.needed_bytes, "the environments"
    if place.device == seen.store_place.device:
        needed, terms = needed + _sum_missing(seen), "the environments and the artifacts"
    missing = ", ".join(environments.missing)
    if not place.writable:
        return problem(
            "environments",
            what=f"{missing} cannot be made {where}",
            why=f"{place.path} cannot be written",
            fix="export TRISTILL_ENVS=DIRECTORY that can be written",
        )
    if place.free_bytes < needed:
        return problem(
            "environments",
            what=f"too little space for {missing} {where}",
            why=f"{terms} need {show_size(needed)}, {show_size(place.free_bytes)} are free",
            fix="free space, or export TRISTILL_ENVS=DIRECTORY on a larger disk",
        )
    return ok(
        "environments",
        what=f"{missing} will be made by the first build {where}",
        why=f"{show_size(environments.needed_bytes)} needed, {show_size(place.free_bytes)} free",
    )


def check_store(seen: Situation) -> Finding:
    """The store can be written, or need not be."""
    place = seen.store_place
    if place.writable:
        return ok("store", what=f"{place.path} can be written")
    told = warning if not seen.needs.missing_bytes else problem
    return told(
        "store",
        what=f"the store cannot be {'written' if place.exists else 'made'}",
        why=f"{place.path} cannot be written by this user",
        fix="mend its permissions, or name another store with --store DIR",
    )


def check_space(seen: Situation) -> Finding:
    """What is still to be made fits on the store's disk."""
    place, needed = seen.store_place, _sum_missing(seen)
    about = "" if seen.needs.settled else "at most "
    if place.free_bytes >= needed:
        return ok(
            "disk", what=f"{about}{show_size(needed)} needed, {show_size(place.free_bytes)} free"
        )
    named = sorted(seen.needs.missing_bytes.items(), key=lambda each: -each[1])[:3]
    return problem(
        "disk",
        what=f"{about}{needed:,} bytes needed, {place.free_bytes:,} free at {place.path}",
        why="the largest: " + ", ".join(f"{name} {size:,}" for name, size in named),
        fix="free space (`python -m pipeline gc` shows what could go), or name a store on a larger"
        " disk with --store DIR",
    )


def check_inodes(seen: Situation) -> Finding:
    """The file systems have room for as many files as will be made."""
    store, environments = seen.store_place, seen.environments_place
    many = _FILES_PER_ENVIRONMENT * len(seen.environments.missing)
    needed = {environments.path: many, store.path: _FILES_OF_A_BUILD}
    if store.device == environments.device:
        needed = {store.path: many + _FILES_OF_A_BUILD}
    for place in (store, environments):
        files = needed.get(place.path, 0)
        if place.free_files is not None and place.free_files < files:
            return problem(
                "inodes",
                what=f"{place.free_files:,} files can still be made at {place.path}",
                why=f"about {files:,} will be: its file system has no inodes left for them",
                fix="remove files there (df -i), or name another disk with --store DIR"
                " (environments: TRISTILL_ENVS)",
            )
    return ok("inodes", what="there is room for the files that will be made")


def check_locks(seen: Situation) -> Finding:
    """Locks keep two builds from making the same thing."""
    place = seen.store_place
    if place.locks is None:
        return ok("locks", what=f"locks at {place.path} are not known without writing there")
    if place.locks:
        return ok("locks", what=f"locks work at {place.path}")
    return warning(
        "locks",
        what=f"locks do nothing at {place.path}",
        why="two builds at once may make the same artifact twice; it stays whole",
        fix="name a store on a local disk with --store DIR",
    )


def _sum_missing(seen: Situation) -> int:
    return sum(seen.needs.missing_bytes.values())
