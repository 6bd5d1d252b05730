"""hf://owner/name and its commit: what a recipe may say of a source on the hub."""

import re

from pipeline.data.source import HUB

_NAME = re.compile(rf"{HUB}[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def find_commit_problems(source: str, revision: str, **others: str) -> list[str]:
    """Return what is wrong with a source and its commit.

    `others` are further fields that only a source on the hub has.
    """
    if not source.startswith(HUB):
        named = [name for name, value in ({"revision": revision} | others).items() if value]
        return [f"{name}: only a source on the hub ({HUB}...) has one" for name in named]
    problems = []
    if not _NAME.fullmatch(source):
        problems.append(f"source: {source!r} is not of the form {HUB}owner/name")
    if not _COMMIT.fullmatch(revision):
        problems.append(
            f"revision: {source} needs the commit that is meant, all 40 digits of it: a branch"
            " would be something else tomorrow"
        )
    return problems
