"""The rules of every page: one file, which fetches nothing and runs no script but its own.

A page's own policy (CSP) says so to the browser, its style and script named by hash; texts from
data reach a page escaped, or as JSON that the script reads.
"""

import base64
import hashlib
import json
from html import escape

_DOCUMENT = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
{script}</body>
</html>
"""


def make_document(
    *, title: str, body: str, style: str, script: str = "", connects: bool = False
) -> str:
    """Return the page of a title, a text, and a body, HTML; `connects` lets its script ask its own
    server."""
    return _DOCUMENT.format(
        policy=_make_policy(style=style, script=script, connects=connects),
        title=escape(title),
        style=style,
        body=body,
        script=f"<script>{script}</script>\n" if script else "",
    )


def _make_policy(*, style: str, script: str, connects: bool) -> str:
    allowed = [
        "default-src 'none'",
        f"style-src '{_hash(style)}'",
        *([f"script-src '{_hash(script)}'"] if script else []),
        *(["connect-src 'self'"] if connects else []),
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return escape("; ".join(allowed))


def write_data(document: object) -> str:
    """Return JSON in which no character can end the script element that it stands in."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    # A lone half of a surrogate pair cannot be written; a tokenizer does not make one.
    return text.encode("utf-8", "replace").decode("utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
