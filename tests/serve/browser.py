"""Debian's Chromium without a window, asked through its debugging pipe. Standard library only."""

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_PROGRAM = shutil.which("chromium", path="/usr/bin:/usr/local/bin")
_WAIT_S = 60.0
_OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
_QUIET = ("--no-first-run", "--disable-extensions", "--disable-component-update")
_OFFLINE = ("--disable-background-networking", "--no-proxy-server")


class Browser:
    """One page of a browser that runs."""

    def __init__(self, reads: int, writes: int) -> None:
        self._reads, self._writes = reads, writes
        self._number, self._rest = 0, b""
        self._session = ""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self.requested: list[str] = []
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def open(self, url: str, *, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        """Load the page at that size."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        told = self._call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Return when the expression is true."""
        deadline = time.monotonic() + _WAIT_S
        while not self.evaluate(script):
            assert time.monotonic() < deadline, f"never true: {script}; {self.errors}"
            time.sleep(0.02)

    def shoot(self, path: Path) -> None:
        """Write a picture of what is seen."""
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writes, json.dumps(message).encode() + b"\0")
        while (told := self._read()).get("id") != self._number:
            self._note(told)
        assert "error" not in told, told
        result: dict[str, Any] = told["result"]
        return result

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            data = os.read(self._reads, 1 << 16)
            assert data, "the browser has ended"
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\0")
        document: dict[str, Any] = json.loads(line)
        return document

    def _note(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requested.append(parameters["request"]["url"])
        elif event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(parameters["exceptionDetails"]))
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(parameters["entry"]["text"])


def find_browser() -> str | None:
    """Return the browser's program; None where there is none."""
    return _PROGRAM


@contextmanager
def browse(folder: Path) -> Iterator[Browser]:
    """Yield a browser whose profile lies in the folder."""
    assert _PROGRAM is not None
    out_reads, out_writes = os.pipe()
    in_reads, in_writes = os.pipe()

    def place() -> None:
        # The browser reads from 3 and writes to 4; neither may be overwritten by the other.
        first, second = os.dup(in_reads), os.dup(out_writes)
        high = [os.dup2(each, 100 + n) for n, each in enumerate((first, second))]
        os.dup2(high[0], 3)
        os.dup2(high[1], 4)

    argv = [_PROGRAM, *_OPTIONS, *_QUIET, *_OFFLINE]
    argv += ["--remote-debugging-pipe", f"--user-data-dir={folder}"]
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            close_fds=False,
            preexec_fn=place,
        )
    os.close(in_reads)
    os.close(out_writes)
    try:
        yield Browser(out_reads, in_writes)
    finally:
        process.kill()
        process.wait()
        os.close(out_reads)
        os.close(in_writes)
