"""A disk that takes no more while a run writes -> the error that says so, and how to go on.

PyTorch and safetensors hide what the file system says in exceptions of their own.
"""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from pipeline.errors import CapacityError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OS_ERROR = re.compile(r"os error (\d+)")
# Where PyTorch's archives are written; it names no reason, and there is hardly another.
_ARCHIVE = "inline_container.cc"


@contextmanager
def answer_full_disk(work: Path) -> Iterator[None]:
    """Turn the libraries' errors into a CapacityError; what is whole in `work` stays."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not _is_full(error):
            raise
        raise CapacityError(
            "the disk is full",
            on=str(work),
            why=f"a file could not be written: {str(error).splitlines()[0]}",
            then="free space; then run the same command again: it goes on after the last whole"
            " checkpoint",
        ) from error


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in _FULL
    if isinstance(error, SafetensorError):
        found = _OS_ERROR.search(str(error))
        return found is not None and int(found[1]) in _FULL
    return _ARCHIVE in str(error)
