"""What the caller's pip knows reaches a build; this machine's paths and stray files do not."""

import hashlib
from pathlib import Path

import pytest

from pipeline.engine import pip_settings
from pipeline.engine.pip_settings import (
    find_certificates,
    gather_wheels,
    make_configuration,
    read_settings,
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "home"
    monkeypatch.setenv("HOME", str(path))
    monkeypatch.setattr(pip_settings, "_OF_ALL_USERS", tmp_path / "none")
    return path


def _read(home: Path, text: str, **variables: str) -> dict[str, str]:
    path = home / ".config" / "pip" / "pip.conf"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return read_settings({"XDG_CONFIG_DIRS": str(home / "none"), **variables})


def _write_wheel(folder: Path, name: str) -> str:
    """Write a file by that name; return its sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(name)
    return hashlib.sha256(name.encode()).hexdigest()


def _write_lock(folder: Path, **digests: str) -> Path:
    path = folder / "a.lock"
    pins = [
        f"{name.replace('_', '-')}==1 \\\n    --hash=sha256:{digest}\n"
        for name, digest in digests.items()
    ]
    path.write_text("".join(pins))
    return path


def test_a_variable_is_stronger_than_a_file_and_a_verb_than_all_verbs(home: Path) -> None:
    text = "[global]\ntimeout = 1\nretries = 1\nproxy = a\n[install]\nretries = 2\nproxy = b\n"
    settings = _read(home, text, PIP_PROXY="c")
    assert (settings["timeout"], settings["retries"], settings["proxy"]) == ("1", "2", "c")


def test_a_caller_without_configuration_has_none(home: Path) -> None:
    assert _read(home, "[global]\nretries = 1\n", PIP_CONFIG_FILE="/dev/null").keys() == {
        "config-file"
    }


def test_the_callers_index_of_torch_is_one_of_the_indexes(home: Path) -> None:
    text = "[global]\nextra-index-url = https://one.example/\n"
    settings = _read(home, text, TRISTILL_TORCH_INDEX="https://two.example/")
    assert settings["extra-index-url"].split() == ["https://one.example/", "https://two.example/"]


def test_other_machines_are_passed_on_and_paths_are_not(home: Path) -> None:
    settings = _read(
        home,
        "[global]\n"
        "index-url = https://one.example/simple\n"
        "extra-index-url = file:///srv/index\n    https://two.example/simple\n"
        "find-links = /srv/wheels https://three.example/\n"
        "target = /srv/target\n"
        "cert = /srv/bundle.crt\n"
        "timeout = 9\n",
    )
    told = make_configuration(settings, with_wheels=True, with_certificates=True)
    assert "/srv" not in told
    assert told == (
        "[global]\n"
        "cert = /etc/ssl/certs/ca-certificates.crt\n"
        "extra-index-url = https://two.example/simple\n"
        "find-links = /wheels\n    https://three.example/\n"
        "index-url = https://one.example/simple\n"
        "timeout = 9\n"
    )


def test_a_caller_with_a_local_index_alone_asks_no_other(home: Path) -> None:
    settings = _read(home, "[global]\nindex-url = file:///srv/index\n")
    told = make_configuration(settings, with_wheels=True, with_certificates=False)
    assert told == "[global]\nfind-links = /wheels\nno-index = true\n"


def test_what_is_written_is_what_pip_reads(home: Path, tmp_path: Path) -> None:
    text = "[global]\nextra-index-url = https://a.example/\n    https://b.example/\n"
    settings = _read(home, text)
    path = tmp_path / "written.conf"
    path.write_text(make_configuration(settings, with_wheels=False, with_certificates=False))
    again = read_settings({"PIP_CONFIG_FILE": str(path), "XDG_CONFIG_DIRS": str(tmp_path)})
    assert again["extra-index-url"].split() == ["https://a.example/", "https://b.example/"]


def test_locked_files_are_gathered_and_no_others(tmp_path: Path) -> None:
    folder = tmp_path / "wheels"
    wanted = _write_wheel(folder, "Two_Words-1-py3-none-any.whl")
    source = _write_wheel(folder, "three-parts-1.tar.gz")
    _write_wheel(folder, "other-1-py3-none-any.whl")
    changed = _write_lock(tmp_path, two_words=wanted, three_parts=source, absent="0" * 64)
    settings = {"find-links": str(folder)}
    gathered = gather_wheels(settings, [changed], tmp_path / "out")
    names = ["Two_Words-1-py3-none-any.whl", "three-parts-1.tar.gz"]
    assert sorted(path.name for path in gathered) == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names


def test_a_file_with_another_hash_stays(tmp_path: Path) -> None:
    _write_wheel(tmp_path / "wheels", "one-1-py3-none-any.whl")
    lock = _write_lock(tmp_path, one="0" * 64)
    assert gather_wheels({"find-links": str(tmp_path / "wheels")}, [lock], tmp_path / "out") == []


def test_pages_of_a_local_index_are_followed(tmp_path: Path) -> None:
    digest = _write_wheel(tmp_path / "files", "one_two-1+cpu-py3-none-any.whl")
    page = tmp_path / "simple" / "one-two" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text(
        '<a href="../../files/one_two-1%2Bcpu-py3-none-any.whl#sha256=0">x</a>'
        '<a href="https://far.example/one_two-2.whl">y</a><a href="../../files/gone-1.whl">z</a>'
    )
    settings = {"extra-index-url": (tmp_path / "simple").as_uri()}
    lock = _write_lock(tmp_path, one_two=digest, absent="0" * 64)
    (path,) = gather_wheels(settings, [lock], tmp_path / "out")
    assert path.name == "one_two-1+cpu-py3-none-any.whl"


def test_the_callers_own_certificates_are_found(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.crt"
    bundle.write_text("")
    assert find_certificates({"cert": str(bundle)}, {}) == bundle
    assert find_certificates({}, {"SSL_CERT_FILE": str(bundle)}) == bundle
    assert find_certificates({"cert": str(tmp_path / "gone")}, {}) is None
