"""A server that runs in the foreground: told of when it is ready, and let finish before it ends."""

import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.log import say
from pipeline.serve.access import Access

_POLL_S = 0.25
_ASK_S = 5.0
# A long answer takes minutes; a second Ctrl-C does not wait for it.
_FINISH_S = 300.0
_BUSY = re.compile(r"^llamacpp:requests_(?:processing|deferred) (\d+)", re.MULTILINE)


@contextmanager
def tell_when_ready(access: Access) -> Iterator[None]:
    """Say, from a thread, where the server is reached, as soon as it has loaded its model."""
    over = threading.Event()
    thread = threading.Thread(target=_tell, args=(access, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _tell(access: Access, over: threading.Event) -> None:
    while not over.wait(_POLL_S):
        if _ask(access, "/health") is not None:
            say(f"ready: {access.url}/v1; the chat page: {access.url}/")
            return


def finish_requests(access: Access) -> None:
    """Return when no request is being answered or waits, or the longest wait is over.

    A server without /metrics cannot say so: then at once.
    """
    deadline = time.monotonic() + _FINISH_S
    told = False
    while time.monotonic() < deadline and (busy := _count_requests(access)):
        if not told:
            say(f"{busy} requests are being finished; Ctrl-C again ends them")
        told = True
        time.sleep(_POLL_S)


def _count_requests(access: Access) -> int:
    return sum(map(int, _BUSY.findall(_ask(access, "/metrics") or "")))


def _ask(access: Access, path: str) -> str | None:
    """Return the server's answer; None where it gives none, or says that it cannot."""
    # No proxy: it is this host.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(access.url + path, headers=access.headers)
    try:
        with opener.open(request, timeout=_ASK_S) as answer:
            return str(answer.read(), "utf-8", "replace")
    except OSError:
        # An HTTP status of 400 and more is one, too: 503 while the model loads.
        return None
