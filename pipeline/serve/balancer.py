"""Two versions behind one address: HAProxy's configuration, and its traffic changed while it runs.

`stable` is what everybody had; `canary` is the new one. Each gets its share of the requests, by
weight. A share is changed in the running process, through its socket: a request that has begun ends
where it began, and the next one goes where the weights say, so nothing fails and a roll-back is one
command. A server that does not answer /health gets nothing; what could not be handed to one goes to
the other, if that has a share. A body larger than any context is refused here: llama-server alone
takes 100 MB, makes tokens of them and then counts. Standard library only.
"""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import HostError, StageError

STABLE, CANARY = "stable", "canary"
_BACKEND = "models"
_FULL = 100
_ANSWER_S = 5.0
# Three times the longest context of today, 393,216 tokens, where each is a letter written \uXXXX.
# For a prompt of 24 MB the server takes 2.5 GB and tens of seconds, and keeps 100 MB in that slot.
BODY_BYTES = 8 << 20

_CONFIGURATION = """\
# Written by pipeline/serve/balancer.py. Checked by: haproxy -c -f FILE
global
  maxconn 4096
  stats socket {socket} mode 600 level admin
  # Asked to stop (SIGUSR1), it lets what runs end, within this.
  hard-stop-after 10m

defaults
  mode http
  log global
  option httplog
  # A long answer takes minutes before its first byte, and pauses between two.
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  # A client has to send its request, and soon.
  timeout http-request 30s
  timeout queue 10m
  # A client that leaves takes its request along.
  option abortonclose
  # A request that no server has begun goes to the other; one that began is not asked twice.
  retries 3
  option redispatch 1
  retry-on conn-failure

frontend api
  bind {listen}
  # Without its length a body could be of any; clients of the API give it.
  http-request return status 411 content-type application/json string '{no_length}' \
if METH_POST !{{ req.hdr(content-length) -m found }}
  http-request return status 413 content-type application/json string '{too_large}' \
if {{ req.body_size gt {body_bytes} }}
  # Which version answered; metrics are for Prometheus, who asks each server by itself.
  http-request deny deny_status 404 if {{ path /metrics }}
  http-response set-header x-served-by %s
  default_backend {backend}

backend {backend}
  balance roundrobin
  option httpchk GET /health
  # A busy machine answers late; a connection that is refused is tried elsewhere at once.
  timeout check 10s
  default-server check inter 1s fall 3 rise 1{resolved}
{servers}

# Its own figures, for Prometheus.
frontend figures
  bind {figures}
  http-request use-service prometheus-exporter if {{ path /metrics }}
  http-request deny deny_status 404
"""


@dataclass(frozen=True, kw_only=True)
class Balancer:
    """Where HAProxy listens, for clients and for Prometheus, and the file of its socket.

    `servers`: the address of each version. `certificate`: a PEM file with its key, for TLS, or "".
    `by_name`: the addresses are names that may come to mean other machines, as in Compose.
    """

    listen: str
    figures: str
    socket: str
    servers: Mapping[str, str]
    certificate: str = ""
    by_name: bool = False


def make_configuration(balancer: Balancer) -> str:
    """Return haproxy.cfg: all traffic to the first version until it is told otherwise."""
    # No HTTP/2: a request that is refused before its end is cancelled there, and nobody reads why.
    secure = f" ssl crt {balancer.certificate} alpn http/1.1" if balancer.certificate else ""
    # Docker's own name server; a version that is not there yet is no error.
    resolved = " resolvers docker init-addr none" if balancer.by_name else ""
    servers = [
        f"  server {name} {address} weight {0 if number else _FULL}"
        for number, (name, address) in enumerate(balancer.servers.items())
    ]
    text = _CONFIGURATION.format(
        backend=_BACKEND,
        body_bytes=BODY_BYTES,
        figures=balancer.figures,
        listen=balancer.listen + secure,
        no_length=_make_refusal("length_required", "the request does not say its Content-Length"),
        resolved=resolved,
        servers="\n".join(servers),
        socket=balancer.socket,
        too_large=_make_refusal(
            "request_too_large", f"the request is larger than {BODY_BYTES} bytes"
        ),
    )
    if not balancer.by_name:
        return text
    return f"{text}\nresolvers docker\n  nameserver local 127.0.0.11:53\n  hold valid 2s\n"


def _make_refusal(code: str, message: str) -> str:
    """Return the body of an error as OpenAI writes it, for between single quotes."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return json.dumps({"error": error})


def set_canary_share(path: Path, percent: int) -> None:
    """Send that share of new requests to the canary, and the rest to the stable version."""
    # The larger share first: a request that comes between the two must find a server with any.
    shares = sorted({STABLE: _FULL - percent, CANARY: percent}.items(), key=lambda each: -each[1])
    commands = [f"set server {_BACKEND}/{name} weight {share}" for name, share in shares]
    if told := ask(path, "; ".join(commands)).strip():
        raise StageError(
            "the balancer did not take the new shares",
            on=str(path),
            why=told,
            then="docker compose logs balancer",
        )


def read_shares(path: Path) -> dict[str, tuple[int, str]]:
    """Return each version's weight, and whether it is up, in HAProxy's word."""
    lines = ask(path, f"show stat {_BACKEND} 4 -1").lstrip("# ").splitlines()
    names = lines[0].split(",") if lines else []
    rows = [dict(zip(names, line.split(","), strict=False)) for line in lines[1:] if line]
    return {row["svname"]: (int(row["uweight"]), row["status"]) for row in rows}


def ask(path: Path, command: str) -> str:
    """Return what the running HAProxy answers. Raises HostError when there is none."""
    try:
        with socket.socket(socket.AF_UNIX) as channel, _short(path) as shortened:
            channel.settimeout(_ANSWER_S)
            channel.connect(shortened)
            channel.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: channel.recv(1 << 16), b"")).decode()
    except OSError as error:
        raise HostError(
            "no balancer answers",
            on=str(path),
            why=str(error),
            then="make compose, then: docker compose --profile canary up -d",
        ) from None


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Yield another name of the file: the kernel takes one of 107 bytes for a socket's."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
