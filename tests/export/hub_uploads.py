"""A hub on loopback that takes what its own library sends: the routes of an upload, no more.

A repository that does not exist is made; large files come by the LFS protocol, the others in the
commit; then the commit is there to be read back.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "89abcdef" * 5
_LARGE = 200  # bytes; the hub's own limit is one of megabytes


@dataclass
class Hub:
    """What it was sent: `files` by name, `objects` by sha256. Who has no `token` is refused. Of
    the file `damaged` another byte is kept; `asked` are the method and path of each request."""

    token: str
    damaged: str = ""
    endpoint: str = ""
    repository: str = ""
    private: bool | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@contextmanager
def serve_hub(hub: Hub) -> Iterator[Hub]:
    """Serve it while the block runs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        path, body = unquote(urlsplit(self.path).path), self._read()
        name = self.hub.repository
        self.hub.asked.append(f"POST {path}")
        if self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self._send(401, {"error": "Invalid user token."})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._send(200, {"errors": [], "warnings": []})
        elif path == f"/api/models/{name}/preupload/main":
            self._send(200, {"files": [self._choose(each) for each in json.loads(body)["files"]]})
        elif path == f"/{name}.git/info/lfs/objects/batch":
            self._send(200, self._offer(json.loads(body)))
        elif path == f"/api/models/{name}/commit/main":
            self._commit([json.loads(line) for line in body.splitlines()])
        elif path == f"/api/models/{name}/paths-info/{COMMIT}":
            wanted = parse_qs(body.decode())["paths"]
            self._send(200, [self._describe(each) for each in wanted if each in self.hub.files])
        else:
            self._send(404, {"error": f"no route {path}"})

    def do_PUT(self) -> None:
        body = self._read()
        self.hub.asked.append(f"PUT {self.path}")
        self.hub.objects[hashlib.sha256(body).hexdigest()] = body
        self._send(200, {})

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _create(self, asked: dict[str, Any]) -> None:
        self.hub.repository = f"{asked['organization']}/{asked['name']}"
        private = asked.get("private", asked.get("visibility") == "private")
        self.hub.private = bool(private)
        self._send(200, {"url": f"{self.hub.endpoint}/{self.hub.repository}"})

    def _choose(self, file: dict[str, Any]) -> dict[str, Any]:
        mode = "lfs" if file["size"] > _LARGE else "regular"
        return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}

    def _offer(self, asked: dict[str, Any]) -> dict[str, Any]:
        objects = []
        for each in asked["objects"]:
            there = each["oid"] in self.hub.objects
            upload = {"upload": {"href": f"{self.hub.endpoint}/objects/{each['oid']}"}}
            objects.append(each | ({} if there else {"actions": upload}))
        return {"transfer": "basic", "objects": objects}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            told = line["value"]
            if line["key"] == "file":
                self.hub.files[told["path"]] = base64.b64decode(told["content"])
            elif line["key"] == "lfsFile":
                self.hub.files[told["path"]] = self.hub.objects[told["oid"]]
                self.hub.large[told["path"]] = told["oid"]
        if self.hub.damaged:
            self.hub.files[self.hub.damaged] += b"?"
        url = f"{self.hub.endpoint}/{self.hub.repository}/commit/{COMMIT}"
        self._send(200, {"commitUrl": url, "commitOid": COMMIT})

    def _describe(self, name: str) -> dict[str, Any]:
        content = self.hub.files[name]
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": blob}
        if name in self.hub.large:
            sha256 = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 130}
        return entry

    def _send(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
