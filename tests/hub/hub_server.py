"""A hub of a few repositories on loopback: the routes that the hub's own library asks, no more."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef" * 2 + "01234567"

_VERBS = "auth-check|revision|tree|paths-info"
_API = re.compile(rf"/api/(dataset|model)s/([^/]+/[^/]+)/({_VERBS})/?(.*)")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


@dataclass
class Repository:
    """Files at one commit. Those of `large` have a sha256, as the hub keeps them; who has no
    `token` is refused; of those of `damaged` other bytes are sent."""

    kind: str
    files: Mapping[str, bytes]
    large: tuple[str, ...] = ()
    damaged: set[str] = field(default_factory=set)
    token: str = ""

    def describe(self, name: str) -> dict[str, Any]:
        """Return what the hub says of a file."""
        content = self.files[name]
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry = {"type": "file", "path": name, "size": len(content), "oid": blob}
        if name in self.large:
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
        return entry


@dataclass
class Hub:
    """The repositories by name; `sent` names the files whose bytes were asked for. Of the file
    `held` half is sent: then `is_waiting` is set, and the rest waits for `go_on`."""

    repositories: dict[str, Repository]
    sent: list[str] = field(default_factory=list)
    endpoint: str = ""
    held: str = ""
    is_waiting: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serve_hub(repositories: dict[str, Repository]) -> Iterator[Hub]:
    """Serve them while the block runs."""
    hub = Hub(repositories)
    handler = type("Bound", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        path = unquote(url.path)
        if found := _API.fullmatch(path):
            kind, name, verb, rest = found.groups()
            self._answer_api(kind, name, verb, rest, parse_qs(url.query), body)
        elif found := _FILE.fullmatch(path):
            in_datasets, name, revision, file = found.groups()
            self._answer_file("dataset" if in_datasets else "model", name, revision, file)
        else:
            self._refuse(404, "RepoNotFound")

    def _find(self, kind: str, name: str) -> Repository | None:
        """Return the repository; or None, once its refusal is sent."""
        repository = self.hub.repositories.get(name)
        if repository is None or repository.kind != kind:
            self._refuse(404, "RepoNotFound")
            return None
        return repository

    def _is_let_in(self, repository: Repository) -> bool:
        if self.headers.get("Authorization") == f"Bearer {repository.token}":
            return True
        if repository.token:
            self._refuse(401, "GatedRepo")
        return not repository.token

    def _answer_api(
        self, kind: str, name: str, verb: str, rest: str, query: dict[str, Any], body: bytes
    ) -> None:
        repository = self._find(kind, name)
        if repository is None:
            return
        revision, _, folder = rest.partition("/")
        if verb == "auth-check":
            if self._is_let_in(repository):
                self._send_json({})
        elif revision != COMMIT:
            self._refuse(404, "RevisionNotFound")
        elif verb == "revision":
            siblings = [{"rfilename": each} for each in repository.files]
            self._send_json({"id": name, "sha": COMMIT, "private": False, "siblings": siblings})
        elif verb == "paths-info":
            found = repository.files.keys() & set(parse_qs(body.decode())["paths"])
            self._send_json([repository.describe(each) for each in sorted(found)])
        else:
            self._send_json(
                _list_tree(repository, folder, deep=query.get("recursive") in (["true"], ["True"]))
            )

    def _answer_file(self, kind: str, name: str, revision: str, file: str) -> None:
        repository = self._find(kind, name)
        if repository is None or not self._is_let_in(repository):
            return
        if revision != COMMIT:
            self._refuse(404, "RevisionNotFound")
        elif file not in repository.files:
            self._refuse(404, "EntryNotFound")
        else:
            self._send_file(repository, file)

    def _send_file(self, repository: Repository, file: str) -> None:
        described = repository.describe(file)
        content = repository.files[file]
        if file in repository.damaged:
            content = content[:-1] + b"?"
        start = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        part = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{described.get("lfs", described)["oid"]}"')
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command == "GET":
            self.hub.sent.append(file)
            with suppress(ConnectionError):
                self._write(part, file)

    def _write(self, part: bytes, file: str) -> None:
        if file == self.hub.held:
            self.wfile.write(part[: len(part) // 2])
            self.hub.is_waiting.set()
            self.hub.go_on.wait()
            part = part[len(part) // 2 :]
        self.wfile.write(part)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send_json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _list_tree(repository: Repository, folder: str, *, deep: bool) -> list[dict[str, Any]]:
    """Return the entries of a folder, or everything below it."""
    start = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {}
    for name in sorted(repository.files):
        if not name.startswith(start):
            continue
        parts = name.removeprefix(start).split("/")
        for depth in range(1, len(parts)) if deep else range(1, min(len(parts), 2)):
            path = start + "/".join(parts[:depth])
            entries[path] = {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
        if deep or len(parts) == 1:
            entries[name] = repository.describe(name)
    return list(entries.values())
