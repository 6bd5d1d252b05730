"""`traffic`: how much of it the new version gets, changed while the balancer runs."""

import argparse
import sys
from pathlib import Path

from pipeline.engine.compose import SOCKET_PATH
from pipeline.log import say
from pipeline.report.table import format_table
from pipeline.serve.balancer import CANARY, read_shares, set_canary_share


def run(arguments: argparse.Namespace) -> None:
    """Send a share of new requests to the new version (0: roll back), or show the shares."""
    if arguments.percent is not None:
        set_canary_share(arguments.socket, arguments.percent)
    shares = read_shares(arguments.socket)
    total = sum(weight for weight, _ in shares.values()) or 1
    rows = [
        (name, f"{100 * weight // total} %", status) for name, (weight, status) in shares.items()
    ]
    sys.stdout.write(format_table(("version", "requests", "state"), rows))


def preview(arguments: argparse.Namespace) -> None:
    """Say what the balancer would be told; it is not asked."""
    told = "ask the balancer what each version gets"
    if arguments.percent is not None:
        told = f"send {arguments.percent} % of new requests to the {CANARY}"
    say(f"would {told}: {arguments.socket}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The socket is that of compose.yaml."""
    parser.add_argument(
        "percent",
        nargs="?",
        type=_parse_percent,
        metavar="PERCENT",
        help=f"of new requests to the {CANARY}; 0 rolls back at once",
    )
    parser.add_argument("--socket", type=Path, default=SOCKET_PATH, metavar="FILE")


def _parse_percent(text: str) -> int:
    if not text.isdecimal() or int(text) > 100:
        raise argparse.ArgumentTypeError(f"invalid share {text!r}: 0 to 100")
    return int(text)
