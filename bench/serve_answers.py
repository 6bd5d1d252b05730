"""Sums -> what the model says to each when it is asked alone, which later answers are held against.

A model of the demonstration's size adds some sums wrongly, alone as in company, so that being right
says little of the server. Here one client asks a server of one slot that keeps no prompt: whatever
differs from that by a character comes from the company, another's slot, prompt or batch. The file
is to be Q8_0, whose logits on a CPU do not depend on the batch: to the bit, on 138,690 tokens of
3,015 answers. Those of other types do, by up to 0.05 nats between the first two tokens in BF16, and
0.24 in Q4_K_M, which changes an answer where two tokens are that near.
"""

import http.client
from collections.abc import Mapping, Sequence

from bench.clients import Answer, Sum, ask
from bench.servers import Settings, ours

_TIMEOUT_S = 60.0
_UNAIDED = {"cache_prompt": False}


def ask_alone(settings: Settings, sums: Sequence[Sum]) -> Mapping[Sum, Answer]:
    """Return the answer to each sum; `settings` are of a server with one slot."""
    with ours(settings) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_TIMEOUT_S)
        try:
            return {each: ask(connection, each, _UNAIDED) for each in sums}
        finally:
            connection.close()
