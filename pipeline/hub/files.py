"""Files of a repository of the Hugging Face hub at one commit -> a directory, each file verified.

The hub's own library asks and downloads; what it leaves unfinished it goes on with. Each file must
have the digest that the commit gives for it: sha256 of large ones, git's of the others.
"""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import httpx2
from huggingface_hub import HfApi, RepoFile
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from pipeline.errors import CapacityError, StageError
from pipeline.log import say, step

_PATHS_PER_QUESTION = 500
_DOWNLOADS = 8


@dataclass(frozen=True, kw_only=True)
class Commit:
    """A repository at one commit; `kind` is "dataset" or "model", as the hub's library says."""

    kind: str
    repository: str
    revision: str

    def __str__(self) -> str:
        return f"hf://{self.repository} at {self.revision}"


@contextmanager
def explained(commit: Commit) -> Iterator[None]:
    """Turn what the hub's library raises into StageErrors that say what to do."""
    try:
        yield
    except GatedRepoError as error:
        then = "accept its terms on its page, log in by `hf auth login` or set HF_TOKEN"
        raise _refuse("the hub's repository is gated", commit, error, then) from None
    except RepositoryNotFoundError as error:
        then = "correct its name in the recipe; for a private one, set HF_TOKEN"
        raise _refuse("the hub has no such repository", commit, error, then) from None
    except RevisionNotFoundError as error:
        then = "set revision to a commit of its history, all 40 digits"
        raise _refuse("the repository has no such commit", commit, error, then) from None
    except (httpx2.TransportError, OfflineModeIsEnabled, ConnectionError, TimeoutError) as error:
        then = "mend the network (HTTPS_PROXY, HF_ENDPOINT), and run the same command again; or"
        then += " download it elsewhere and name its directory in the recipe"
        raise _refuse("the hub does not answer", commit, error, then) from None
    except (HfHubHTTPError, EntryNotFoundError) as error:
        then = "run the same command again; what has been fetched is kept"
        raise _refuse("the hub refuses", commit, error, then) from None


def _refuse(what: str, commit: Commit, error: Exception, then: str) -> StageError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = " ".join(lines) or "it says nothing"
    return StageError(what, on=str(commit), why=f"{type(error).__name__}: {told}", then=then)


def require_access(commit: Commit) -> None:
    """Raise StageError unless the repository is there, has the commit, and may be read."""
    api = HfApi()
    with explained(commit):
        api.auth_check(commit.repository, repo_type=commit.kind)
        api.repo_info(commit.repository, repo_type=commit.kind, revision=commit.revision)


def list_files(commit: Commit, names: Sequence[str]) -> list[RepoFile]:
    """Return what the commit says of the named files; those that it does not have are left out."""
    found: list[Any] = []
    api = HfApi()
    with explained(commit):
        for start in range(0, len(names), _PATHS_PER_QUESTION):
            found += api.get_paths_info(
                commit.repository,
                list(names[start : start + _PATHS_PER_QUESTION]),
                repo_type=commit.kind,
                revision=commit.revision,
            )
    return [each for each in found if isinstance(each, RepoFile)]


def fetch_files(commit: Commit, files: Sequence[RepoFile], *, work: Path, out: Path) -> None:
    """Download the files into `work`, where those of a killed run lie; verify and put into `out`.

    Raises CapacityError before the first byte, and StageError.
    """
    _require_inside(commit, files)
    _require_space(commit, files, work)
    total = sum(file.size for file in files)

    def fetch(file: RepoFile) -> None:
        HfApi().hf_hub_download(
            commit.repository,
            file.path,
            repo_type=commit.kind,
            revision=commit.revision,
            local_dir=work,
        )
        say(f"    {file.path}: {file.size:,} bytes")

    with (
        step(f"fetch {len(files)} files, {total:,} bytes"),
        explained(commit),
        ThreadPoolExecutor(_DOWNLOADS) as pool,
    ):
        list(pool.map(fetch, files))
    with step("verify"):
        for file in files:
            _require_commits(commit, file, work / file.path)
    for file in files:
        (out / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(work / file.path, out / file.path)


def _require_inside(commit: Commit, files: Sequence[RepoFile]) -> None:
    for file in files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts:
            raise StageError(
                "a file's name leads out of its repository",
                on=f"{file.path!r} of {commit}",
                why="the hub says so, or what answers in its place",
                then="name another commit, or mend HF_ENDPOINT",
            )


def _require_space(commit: Commit, files: Sequence[RepoFile], work: Path) -> None:
    needed = sum(each.size for each in files if not (work / each.path).is_file())
    free = shutil.disk_usage(work).free
    if needed > free:
        raise CapacityError(
            "not enough disk space for what is to be fetched",
            on=str(commit),
            why=f"{needed:,} bytes needed, {free:,} free: {needed - free:,} too few",
            then="free space, or name a store on a larger disk with --store DIR",
        )


def _require_commits(commit: Commit, file: RepoFile, path: Path) -> None:
    """Raise StageError, and let go of the file, unless it is the commit's."""
    expected = file.lfs.sha256 if file.lfs else file.blob_id
    found = hash_as_kept(path, as_blob=not file.lfs)
    if found != expected:
        path.unlink()
        raise StageError(
            "a fetched file is not the commit's",
            on=f"{file.path} of {commit}",
            why=f"its digest is {found}, the commit says {expected}: it was damaged on its way",
            then="run the same command again; the other files are kept",
        )


def hash_as_kept(path: Path, *, as_blob: bool) -> str:
    """Return the sha256 of a file, or the name that git gives to its content."""
    with path.open("rb") as file:
        if not as_blob:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
        return hashlib.file_digest(file, lambda: digest).hexdigest()
