"""What a file system refuses is told as an error of its kind, and our own faults are not."""

import errno
import os

import pytest

from pipeline.errors import explain_os_error


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [(errno.ENOSPC, 4), (errno.EDQUOT, 4), (errno.EACCES, 3), (errno.EROFS, 3), (errno.ENOENT, 3)],
)
def test_a_refusal_has_an_exit_code_and_names_the_file(number: int, exit_code: int) -> None:
    explained = explain_os_error(OSError(number, os.strerror(number), "/store/file"))
    assert explained is not None
    assert explained.exit_code == exit_code
    assert "/store/file" in str(explained)
    assert os.strerror(number) in str(explained)


def test_a_fault_of_our_own_is_not_explained_away() -> None:
    assert explain_os_error(OSError(errno.EBADF, "bad file descriptor")) is None
