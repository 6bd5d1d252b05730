"""A page that changes, for this host's browser alone: the loopback address, one page, GET only.

A request that names another host is refused, so that no page from elsewhere can reach this one
under a name of its own that leads to the loopback address.
"""

from collections.abc import Callable
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from pipeline.errors import TristillError
from pipeline.report.training import Run
from pipeline.report.training_page import make_page, make_run

LOOPBACK = "127.0.0.1"


class PageServer(ThreadingHTTPServer):
    """Serves the run that `read` returns, read anew for each request."""

    daemon_threads = True

    def __init__(self, port: int, read: Callable[[], Run]) -> None:
        super().__init__((LOOPBACK, port), _Handler)
        self.read = read

    @property
    def address(self) -> str:
        """The page's address."""
        return f"http://{LOOPBACK}:{self.server_port}/"


class _Handler(BaseHTTPRequestHandler):
    """Answers `/`, the page, and `/run`, the part of it that changes."""

    server: PageServer
    server_version = "tristill"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer one request."""
        if urlsplit(f"//{self.headers.get('Host', '')}").hostname not in (LOOPBACK, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN)
        elif self.path not in ("/", "/run"):
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            try:
                run = self.server.read()
            except TristillError as error:
                page = f"<pre>{escape(str(error))}</pre>"
                self._send(page, "damaged", HTTPStatus.INTERNAL_SERVER_ERROR)
                return
            page = make_page(run, live=True) if self.path == "/" else make_run(run)
            self._send(page, run.state)

    def _send(self, page: str, state: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        content = page.encode("utf-8")
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-State", state)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: a page that asks every two seconds is no news."""
