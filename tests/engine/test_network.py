"""What a stage that fetches is given of the caller's, and that no other is."""

from pathlib import Path

from pipeline.engine.network import find_token, make_network_variables

_ONLINE = {
    "HF_HUB_OFFLINE": "0",
    "HF_XET_CHUNK_CACHE_SIZE_BYTES": "0",
    "TRANSFORMERS_OFFLINE": "0",
}


def test_only_what_leads_to_the_hub_is_handed_on(tmp_path: Path) -> None:
    certificates = tmp_path / "ca.pem"
    certificates.touch()
    led = {
        "HF_ENDPOINT": "http://mirror",
        "https_proxy": "http://proxy",
        "NO_PROXY": "local",
        "HF_TOKEN": "hf_secret",
    }
    caller = {
        **led,
        "HOME": str(tmp_path),
        "PATH": "/bin",
        "AWS_SECRET_ACCESS_KEY": "other",
        "HF_HOME": "/elsewhere",
        "REQUESTS_CA_BUNDLE": str(certificates),
        "http_proxy": "",
    }
    expected = _ONLINE | led | {"SSL_CERT_FILE": str(certificates)}
    assert make_network_variables(caller) == expected


def test_a_token_that_a_login_has_left_is_read(tmp_path: Path) -> None:
    caller = {"HOME": str(tmp_path)}
    assert find_token(caller) is None
    assert make_network_variables(caller) == _ONLINE
    path = tmp_path / ".cache" / "huggingface" / "token"
    path.parent.mkdir(parents=True)
    path.write_text("hf_left\n")
    assert find_token(caller) == path
    assert make_network_variables(caller) == _ONLINE | {"HF_TOKEN": "hf_left"}
    named = {**caller, "HUGGING_FACE_HUB_TOKEN": "hf_named"}
    assert make_network_variables(named) == _ONLINE | {"HF_TOKEN": "hf_named"}
