"""The chat page in a real browser, on a real server whose words are known."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.serve.argv import ServerSettings
from pipeline.serve.chat_page import make_chat_page
from pipeline.serve.server import run_server
from pipeline.serve.thinking import fold_thinking
from tests.serve.browser import Browser, browse, find_browser
from tests.serve.scripted_gguf import ASSISTANT, Script, write_adapter, write_model

pytestmark = pytest.mark.serve

_SHOWN_THOUGHTS = ".thinking:not([hidden]) .text"
_SCRIPT = Script(pieces=["<think>", "\nI <b>add</b>", ".\n", "</think>", "\nForty", "-two <i>"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    (folder / "page").mkdir()
    (folder / "page" / "index.html").write_text(make_chat_page())
    (folder / "template").write_text(fold_thinking(_SCRIPT.template))
    (folder / "keys").write_text("secret\n")
    write_model(folder / "model.gguf", _SCRIPT)
    write_adapter(folder / "adapter.gguf", _SCRIPT, {ASSISTANT: "\nForty"})
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if find_browser() is None:
        pytest.skip("no chromium: apt-get install chromium")
    with browse(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def make_settings(folder: Path, **changes: Any) -> ServerSettings:
    asked = {"host": "127.0.0.1", "port": 0, "context": 512, "parallel": 1, "threads": 1}
    page = {"web_page": True, "page": str(folder / "page"), "alias": "scripted"}
    split = {"template": str(folder / "template"), "splits_thinking": True}
    return ServerSettings(**{**asked, **page, **split, **changes})


def send(browser: Browser, text: str) -> None:
    browser.evaluate(f"find('asked').value = {text!r}; find('send').click()")
    browser.wait_for("running === null && find('turns').children.length > 0")


def read(browser: Browser, which: str) -> list[str]:
    script = f"[...document.querySelectorAll('{which}')].map(each => each.textContent)"
    return [str(each) for each in browser.evaluate(script)]


def test_a_chat_in_the_browser(folder: Path, browser: Browser) -> None:
    with run_server(folder / "model.gguf", make_settings(folder)) as url:
        for width, dark in [(390, True), (1280, False)]:
            browser.requested.clear()
            browser.open(url, width=width, height=844, dark=dark)
            browser.wait_for("document.title === 'scripted'")
            assert not browser.evaluate("document.documentElement.scrollWidth > innerWidth")
            send(browser, "40 + 2?")
            assert read(browser, ".user > .text") == ["40 + 2?"]
            assert read(browser, ".assistant > .text") == ["Forty-two <i>"]
            assert [each.strip() for each in read(browser, _SHOWN_THOUGHTS)] == ["I <b>add</b>."]
            send(browser, "Again?")
            assert browser.evaluate("turns.length") == 4
            assert browser.evaluate("turns[1].reasoning_content").strip() == "I <b>add</b>."
            assert {each for each in browser.requested if not each.startswith(url)} == set()
            browser.shoot(folder / f"page-{width}.png")
            assert not browser.evaluate("document.documentElement.scrollWidth > innerWidth")
            browser.evaluate("find('again').click()")
            assert read(browser, ".turn") == []
    assert browser.errors == []


def test_the_page_asks_for_the_key_and_offers_the_adapters(folder: Path, browser: Browser) -> None:
    settings = make_settings(
        folder, api_key_file=str(folder / "keys"), adapters=(str(folder / "adapter.gguf"),)
    )
    with run_server(folder / "model.gguf", settings) as url:
        browser.open(url)
        browser.wait_for("!find('key').parentElement.hidden")
        send(browser, "40 + 2?")
        assert "API Key" in read(browser, ".failed")[0]
        browser.evaluate(
            "find('key').value = 'secret'; find('key').dispatchEvent(new Event('change'))"
        )
        browser.wait_for("find('adapter').options.length === 2")
        browser.evaluate("find('again').click(); find('adapter').value = '0'")
        send(browser, "40 + 2?")
        assert [each.strip() for each in read(browser, ".assistant > .text")] == ["Forty-two <i>"]
        assert read(browser, _SHOWN_THOUGHTS) == []


def test_an_answer_is_stopped_where_it_is(folder: Path, browser: Browser, tmp_path: Path) -> None:
    gguf = write_model(tmp_path / "model.gguf", Script(pieces=["on ", "and "], endless=True))
    settings = make_settings(folder, context=4096, template="", splits_thinking=False)
    with run_server(gguf, settings) as url:
        browser.open(url)
        browser.evaluate("find('asked').value = 'go'; find('send').click()")
        browser.wait_for("turns.length === 1 && find('turns').textContent.includes('on and on')")
        browser.evaluate("find('send').click()")
        browser.wait_for("running === null && turns.length === 2")
        assert read(browser, ".failed") == []
        assert browser.evaluate("find('send').textContent") == "Send"
