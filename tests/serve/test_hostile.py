"""Clients that do not mean well take nothing from those that do: no crash, no slot, no answer, and
no memory for good."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from bench.clients import Answer, make_sums
from bench.hostile import (
    IN_EARNEST,
    KINDS,
    Sender,
    WrongAnswer,
    attack,
    exchange,
    make_asker,
    read_resident_bytes,
    write_request,
)
from bench.servers import KEY, find_llama_server, find_port
from pipeline.serve.argv import ServerSettings
from pipeline.serve.server import run_server
from tests.serve.scripted_gguf import Script, write_model

pytestmark = pytest.mark.serve

_REQUESTS, _SLOTS = 300, 4
_HUGE = 24_000_000
_SAID = Answer(thinking="", content="Forty and two.", tokens=4)


@contextmanager
def _serve(folder: Path) -> Iterator[int]:
    gguf = write_model(folder / "model.gguf", Script(pieces=["Forty ", "and ", "two."]))
    keys, port = folder / "keys", find_port()
    keys.write_text(f"{KEY}\n")
    settings = ServerSettings(
        host="127.0.0.1",
        port=port,
        context=512,
        parallel=_SLOTS,
        threads=1,
        web_page=False,
        metrics=True,
        api_key_file=str(keys),
        prompt_cache_mib=0,
    )
    with run_server(gguf, settings):
        yield port


def test_a_server_outlives_them_and_answers_all_others(tmp_path: Path) -> None:
    answers = dict.fromkeys(make_sums(50), _SAID)
    # Its megabytes have a test of their own.
    kinds: dict[str, Sender] = {name: each for name, each in KINDS.items() if name != "huge body"}
    with _serve(tmp_path) as port:
        outcome = attack(port, _REQUESTS, answers, kinds=kinds)
        assert outcome.is_alive
        assert outcome.sent.total() == _REQUESTS
        assert outcome.sent[IN_EARNEST] > 0
        assert dict(outcome.unexpected) == {}
        assert outcome.wrong == []
        assert outcome.busy_after == 0
        ask = make_asker(answers)
        for each in list(answers)[: 2 * _SLOTS]:
            ask(port, each)
        other = dict.fromkeys(answers, replace(_SAID, content="Forty-two."))
        with pytest.raises(WrongAnswer):
            make_asker(other)(port, next(iter(answers)))


def test_what_a_large_body_took_is_given_back(tmp_path: Path) -> None:
    request = write_request("POST", "/v1/chat/completions", b"{" + b" " * _HUGE)
    with _serve(tmp_path) as port, ThreadPoolExecutor(_SLOTS) as clients:
        process = find_llama_server(port)
        before_bytes = read_resident_bytes(process)
        told = list(clients.map(lambda _: exchange(port, request)[0], range(2 * _SLOTS)))
        assert set(told) == {500}
        assert read_resident_bytes(process) - before_bytes < _HUGE
