"""Who may reach a server is settled, and its port is tried, before anything is loaded."""

import socket
from pathlib import Path

import pytest

from pipeline.errors import HostError, UsageError
from pipeline.serve.access import make_access, read_keys, require_free_port


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_at_the_loopback_no_key_is_needed(address: str) -> None:
    access = make_access(address, 8080, None)
    assert access.headers == {}
    assert access.url.startswith("http://127." if access.address != "::1" else "http://[::1]:8080")


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.168.1.2", "fe80::1"])
def test_beyond_it_one_is(address: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs a key"):
        make_access(address, 8080, None)
    keys = tmp_path / "keys"
    keys.write_text("# mine\n\nsecret\nanother\n")
    access = make_access(address, 8080, keys)
    assert access.headers == {"Authorization": "Bearer secret"}
    assert access.url in (
        *("http://127.0.0.1:8080", "http://[::1]:8080"),
        *("http://192.168.1.2:8080", "http://[fe80::1]:8080"),
    )


@pytest.mark.parametrize(
    "address", ["example.org", "", "300.1.1.1", "127.0.0.1,0.0.0.0", "/a.sock"]
)
def test_a_name_is_no_address(address: str) -> None:
    with pytest.raises(UsageError, match="no address"):
        make_access(address, 8080, None)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "holds no key"),
        (b"# only\n\n", "holds no key"),
        (b"secret\r\n", "key 1 has spaces"),
        (b"good\n two words \n", "key 2 has spaces"),
        ("sécret\n".encode(), "key 1"),
        (b"\xff\xfe\n", "decode"),
    ],
)
def test_a_file_whose_keys_no_client_could_send(tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "keys").write_bytes(data)
    with pytest.raises(UsageError) as caught:
        make_access("0.0.0.0", 8080, tmp_path / "keys")
    assert why in caught.value.why


def test_a_key_is_in_no_error(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("secret \n")
    with pytest.raises(UsageError) as caught:
        read_keys(tmp_path / "keys")
    assert "secret" not in str(caught.value)


def test_a_port_in_use_is_told_with_one_that_is_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(HostError, match="cannot listen") as caught:
            require_free_port("127.0.0.1", port)
    assert "another program listens there" in caught.value.why
    offered = int(caught.value.then.split("--port ")[1].split()[0])
    assert offered != port
    require_free_port("127.0.0.1", offered)
    require_free_port("127.0.0.1", port)


def test_an_address_of_another_host_is_told() -> None:
    with pytest.raises(HostError) as caught:
        require_free_port("192.0.2.1", 8080)
    assert "no such address" in caught.value.why
