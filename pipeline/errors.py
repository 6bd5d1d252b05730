"""Every error that a user can meet, one exit code per reason.

A message has four parts: what failed, on which thing, the likely reason, the next command.
`cli.main` on the host and `job.main` inside an image are the only places that catch them.
"""

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


INTERRUPTED = 130
