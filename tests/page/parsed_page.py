"""A page as a browser would take it apart, for tests."""

import base64
import hashlib
from html.parser import HTMLParser


class ParsedPage(HTMLParser):
    """Collects elements, attributes and texts, those apart that hold code."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.codes: dict[str, list[str]] = {"style": [], "script": []}
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag in self.codes:
            self.codes[tag].append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem in self.codes:
            self.codes[self.cdata_elem][-1] += data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """All that is read on the page."""
        return " ".join(self.texts)

    @property
    def policy(self) -> str:
        """The page's own policy."""
        return next(
            value
            for name, value in self.attributes
            if name == "content" and value and "default-src" in value
        )

    def require_nothing_foreign(self) -> None:
        """Raise AssertionError when the page could fetch, or run what is not its own code."""
        assert {"img", "link", "iframe", "object", "form"}.isdisjoint(self.tags)
        names = {name for name, _ in self.attributes}
        assert not {name for name in names if name.startswith("on")}
        assert not names & {"src", "href", "style"}
        assert "//" not in "".join(str(value) for _, value in self.attributes)
        assert not any("url(" in code for code in self.codes["style"])
        assert "default-src 'none'" in self.policy
        # A script before the last holds data.
        code = [(kind, text) for kind in ("style", "script") for text in self.codes[kind][-1:]]
        for kind, text in code:
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert f"{kind}-src 'sha256-{digest}'" in self.policy
