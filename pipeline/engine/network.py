"""What a stage that fetches is given of the caller's: the way to the hub, and a token for it.

No other stage has a network. Secrets go through the variables of the stage alone: no key, job
document, command line or log holds one.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path

from pipeline.engine.pip_settings import find_certificates

CERTIFICATES = "SSL_CERT_FILE"

_TOKEN = "HF_TOKEN"
# The second is what the hub's library called it before.
_TOKENS = (_TOKEN, "HUGGING_FACE_HUB_TOKEN")
_PROXIES = ("all_proxy", "http_proxy", "https_proxy", "no_proxy")
_PASSED = (
    "HF_ENDPOINT",
    "HF_HUB_DISABLE_XET",
    "HF_HUB_DOWNLOAD_TIMEOUT",
    "HF_HUB_ETAG_TIMEOUT",
    *(each for name in _PROXIES for each in (name, name.upper())),
)
# The images say the opposite, so that nothing is fetched by accident. No cache of chunks: it would
# lie in the scratch directory, which in a container is memory.
_ONLINE = {
    "HF_HUB_OFFLINE": "0",
    "HF_XET_CHUNK_CACHE_SIZE_BYTES": "0",
    "TRANSFORMERS_OFFLINE": "0",
}


def make_network_variables(caller: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that a stage with a network gets beside its image's.

    `caller` are this process's. A token that the hub's own login has left in a file is read.
    """
    passed = {name: caller[name] for name in _PASSED if caller.get(name)}
    token = _read_token(caller)
    certificates = find_certificates({}, caller)
    return (
        _ONLINE
        | passed
        | ({_TOKEN: token} if token else {})
        | ({CERTIFICATES: str(certificates)} if certificates else {})
    )


def find_system_certificates() -> Path | None:
    """Return this host's own bundle of certificates: a container has none."""
    named = ssl.get_default_verify_paths().openssl_cafile
    usual = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
    return next((path for path in map(Path, (named, *usual)) if path.is_file()), None)


def find_token(caller: Mapping[str, str]) -> str | Path | None:
    """Return where a token for the hub is, as the hub's own library looks for it: the name of a
    variable, or a file; None for nowhere."""
    if named := next((name for name in _TOKENS if caller.get(name)), None):
        return named
    home = Path(caller.get("HOME", "/"))
    cache = Path(caller.get("XDG_CACHE_HOME") or home / ".cache")
    hub = Path(caller.get("HF_HOME") or cache / "huggingface")
    path = Path(caller.get("HF_TOKEN_PATH") or hub / "token")
    return path if path.is_file() and path.stat().st_size else None


def _read_token(caller: Mapping[str, str]) -> str:
    found = find_token(caller)
    if isinstance(found, Path):
        return found.read_text(encoding="utf-8").strip()
    return caller[found] if found else ""
