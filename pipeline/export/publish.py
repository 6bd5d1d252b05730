"""Stage: an exported folder -> a repository of the Hugging Face hub, in one commit.

In: `folder`. Out: published.txt, the commit's address. The hub's own library sends the files; what
the hub holds already is not sent again. Then the commit is read back, and every file in it must
have the digest of ours: a commit that is not whole is an error. Files that were there before and
are not ours stay.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi

from pipeline.errors import StageError
from pipeline.hub.files import Commit, explained, hash_as_kept, list_files
from pipeline.log import say, step

_MODEL = "model"


@dataclass(frozen=True, kw_only=True)
class Options:
    """`public`: a repository that has yet to be made is for all to see; else it is private."""

    repository: str
    public: bool


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Send the folder. StageError when the hub cannot be asked, refuses, or keeps other bytes."""
    paths = sorted(path for path in inputs["folder"].iterdir() if path.is_file())
    target = Commit(kind=_MODEL, repository=options.repository, revision="main")
    size_bytes = sum(path.stat().st_size for path in paths)
    api = HfApi()
    with step(f"send {len(paths)} files, {size_bytes:,} bytes"), _named(target), explained(target):
        api.create_repo(
            options.repository, repo_type=_MODEL, private=not options.public, exist_ok=True
        )
        commit = api.create_commit(
            options.repository,
            [CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in paths],
            commit_message="Publish the files of one recipe",
            repo_type=_MODEL,
        )
    sent = Commit(kind=_MODEL, repository=options.repository, revision=commit.oid)
    with step("read back"):
        _require_sent(sent, paths)
    say(f"  {sent}")
    (out / "published.txt").write_text(f"{commit.commit_url}\n", encoding="utf-8")


@contextmanager
def _named(target: Commit) -> Iterator[None]:
    """Turn what the library raises of a single file into an error that says so."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        cause = f" ({type(error.__cause__).__name__}: {error.__cause__})" if error.__cause__ else ""
        raise StageError(
            "a file was not sent",
            on=str(target),
            why=f"{error}{cause}",
            then="run the same command again; what was sent is not sent twice",
        ) from None


def _require_sent(commit: Commit, paths: Sequence[Path]) -> None:
    found = {each.path: each for each in list_files(commit, [path.name for path in paths])}
    for path in paths:
        entry = found.get(path.name)
        kept = "" if entry is None else entry.lfs.sha256 if entry.lfs else entry.blob_id
        if entry is None or kept != hash_as_kept(path, as_blob=entry.lfs is None):
            raise StageError(
                "the hub does not hold what was sent",
                on=f"{path.name} of {commit}",
                why=f"its digest there is {kept or 'none'}",
                then="run the same command again",
            )
