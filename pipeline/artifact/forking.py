"""Starting a process so that no interrupt is lost meanwhile and that none outlives its parent.

Python drops an exception that a signal raises inside its own clean-up after a fork, and one raised
before the new process has a name would leave it behind. So signals wait until it is started.
"""

import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


@contextmanager
def interrupts_held() -> Iterator[Callable[[], None]]:
    """Hold SIGINT and SIGTERM back while a process is started.

    Yields what the new process calls first: it lets signals through again, and asks the kernel
    (Linux) for SIGTERM once this process is gone, however that dies.
    """
    parent = os.getpid()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})

    def begin() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        end_with_parent(parent)

    try:
        yield begin
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def end_with_parent(parent: int) -> None:
    """Ask the kernel (Linux) for SIGTERM to this process once its parent is gone, however it dies.

    `parent` is the id that it had before the fork: it may be gone by now.
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)
