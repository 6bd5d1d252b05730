"""Every error that a user can meet, one exit code per reason.

A message has four parts: what failed, on which thing, the likely reason, the next command.
`cli.main` on the host and `job.main` inside an image are the only places that catch them.
"""

import errno
from typing import ClassVar


class TristillError(Exception):
    """The root: what failed, on which thing, why it is likely, what to do then."""

    exit_code: ClassVar[int]

    def __init__(self, what: str, *, on: str, why: str, then: str) -> None:
        super().__init__(what)
        self.what = what
        self.on = on
        self.why = why
        self.then = then

    def __str__(self) -> str:
        return f"{self.what}\n  on:   {self.on}\n  why:  {self.why}\n  next: {self.then}"


class UsageError(TristillError):
    """The recipe or the command line says something that cannot be meant."""

    exit_code = 2


class HostError(TristillError):
    """This host lacks something that the work needs."""

    exit_code = 3


class CapacityError(TristillError):
    """Not enough disk, memory or VRAM; said before the work starts."""

    exit_code = 4


class StageError(TristillError):
    """A stage failed: its input is wrong or its result would be."""

    exit_code = 5


class StoreError(TristillError):
    """An artifact in the store is not what its manifest says."""

    exit_code = 6


class DifferenceError(TristillError):
    """An artifact built again has other bytes."""

    exit_code = 7


INTERRUPTED = 130

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EIO)


def explain_os_error(error: OSError) -> TristillError | None:
    """Return what a full disk or a refused file means for the user; None for our own faults."""
    on = str(error.filename or "a file of the store, the environments or the scratch directory")
    if error.errno in _FULL:
        return CapacityError(
            "the disk is full",
            on=on,
            why=f"{error.strerror}; what was being made is removed",
            then="free space, or move the store (--store DIR); then run the same command again",
        )
    if error.errno in _REFUSED:
        return HostError(
            "a file or directory cannot be used",
            on=on,
            why=str(error.strerror),
            then="mend its path or permissions; then run the same command again",
        )
    return None
