"""Who may reach a server, and whether it can listen there at all: said before anything is loaded.

At the loopback address the host's own users reach it, without a key. Beyond it anybody might, so
there it needs a file of keys. Standard library only.
"""

import errno
import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import HostError, UsageError

LOOPBACK = "127.0.0.1"
_OFFERED_PORTS = 100


@dataclass(frozen=True, kw_only=True)
class Access:
    """Where a server listens, and the file of the keys that it asks for (None: for none)."""

    address: str
    port: int
    key_file: Path | None

    @property
    def url(self) -> str:
        """The URL at which this host reaches it."""
        parsed = ipaddress.ip_address(self.address)
        here = parsed
        if parsed.is_unspecified:
            here = ipaddress.ip_address(LOOPBACK if parsed.version == 4 else "::1")
        shown = f"[{here}]" if here.version == 6 else str(here)
        return f"http://{shown}:{self.port}"

    @property
    def headers(self) -> dict[str, str]:
        """What a request of ours must carry: the first key, if any."""
        if self.key_file is None:
            return {}
        return {"Authorization": f"Bearer {read_keys(self.key_file)[0]}"}


def make_access(address: str, port: int, key_file: Path | None) -> Access:
    """Return who may reach a server at the address.

    Raises UsageError when it is none, or lies beyond the loopback and there is no key.
    """
    parsed = _parse_address(address)
    if key_file is not None:
        read_keys(key_file)
    elif not parsed.is_loopback:
        raise UsageError(
            "a server that other machines reach needs a key",
            on=f"address {address}",
            why="without one, whoever reaches the port uses the model",
            then="openssl rand -hex 32 > keys && chmod 600 keys; then add --api-key-file keys",
        )
    return Access(address=str(parsed), port=port, key_file=key_file and key_file.resolve())


def _parse_address(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(LOOPBACK if address == "localhost" else address)
    except ValueError:
        raise UsageError(
            "this is no address to listen on",
            on=address,
            why="an IPv4 or IPv6 address is needed; a name may mean several",
            then="--host 127.0.0.1 (this machine alone) or --host 0.0.0.0 (every network)",
        ) from None


def read_keys(path: Path) -> list[str]:
    """Return the keys of a file: one a line, lines with # left out.

    Raises UsageError when it cannot be read, holds none, or one that no client could send.
    """
    try:
        lines = path.read_bytes().decode().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise _make_key_error(path, str(error)) from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise _make_key_error(path, "it holds no key: every client would be let in")
    for number, key in enumerate(keys, start=1):
        # The server takes a line as it is, with the carriage return of a Windows editor.
        if not (key.isascii() and key.isprintable()) or key != key.strip():
            raise _make_key_error(path, f"key {number} has spaces around it or is not plain ASCII")
    return keys


def _make_key_error(path: Path, why: str) -> UsageError:
    return UsageError(
        "the file of keys cannot be used",
        on=str(path),
        why=why,
        then=f"openssl rand -hex 32 > {path} && chmod 600 {path}",
    )


def require_free_port(address: str, port: int) -> None:
    """Raise HostError when no server could listen there now, with a port where one could."""
    if (error := _try_port(address, port)) is None:
        return
    if error.errno == errno.EADDRNOTAVAIL:
        why, then = "this host has no such address", "`ip addr` lists those that it has"
    elif error.errno == errno.EACCES:
        why, then = "ports below 1024 are root's", "--port 8080"
    elif error.errno == errno.EADDRINUSE:
        why = "another program listens there: `ss -ltnp` names it"
        offered = find_free_port(address, port)
        then = f"end it, or listen elsewhere: --port {offered}"
    else:
        why, then = str(error.strerror), "listen elsewhere: --host and --port"
    raise HostError(
        "the server cannot listen there", on=f"{address} port {port}", why=why, then=then
    )


def _try_port(address: str, port: int) -> OSError | None:
    """Return why the port cannot be bound, as the server would bind it; None when it can."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            # Two may bind one port; only one may listen on it.
            probe.listen()
    except OSError as error:
        return error
    return None


def find_free_port(address: str, port: int) -> int:
    """Return the first port after this one that is free; 0 when none of a hundred is."""
    after = range(port + 1, min(port + _OFFERED_PORTS, 1 << 16))
    return next((each for each in after if _try_port(address, each) is None), 0)
