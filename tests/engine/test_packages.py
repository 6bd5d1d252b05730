"""Only the locked bytes are installed; torch's own index is asked last."""

import hashlib
import zipfile
from pathlib import Path

import pytest

from pipeline.engine import packages
from pipeline.errors import HostError


def _make_wheel(folder: Path, name: str, version: str) -> str:
    """Write a wheel of one empty module and its index page; return its sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    information = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(
            f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        wheel.writestr(
            f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{information}/RECORD", "")
    (folder / "index.html").write_text(f'<a href="{path.name.replace("+", "%2B")}">{path.name}</a>')
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_lock(path: Path, pin: str, digest: str) -> Path:
    path.write_text(f"{pin} \\\n    --hash=sha256:{digest}\n")
    return path


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("environments") / "venv"
    packages.make_venv(path, [], title="test", log_path=path.parent / "log")
    return path


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the only index that pip knows."""
    path = tmp_path / "index"
    path.mkdir()
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", path.as_uri())
    monkeypatch.setenv("PIP_RETRIES", "0")
    return path


def _install(venv: Path, lock: Path) -> None:
    packages.install(venv, lock, title="test", log_path=lock.parent / "log")


def test_the_locked_wheel_is_installed(venv: Path, tmp_path: Path, index: Path) -> None:
    digest = _make_wheel(index / "drop", "drop", "1.0")
    _install(venv, _write_lock(tmp_path / "a.lock", "drop==1.0", digest))
    assert (packages.find_site_packages(venv) / "drop.py").is_file()


def test_another_file_of_that_name_is_refused(venv: Path, tmp_path: Path, index: Path) -> None:
    _make_wheel(index / "still", "still", "1.0")
    with pytest.raises(HostError, match="DO NOT MATCH THE HASHES") as caught:
        _install(venv, _write_lock(tmp_path / "a.lock", "still==1.0", "0" * 64))
    assert str(tmp_path / "log") in caught.value.then
    assert not (packages.find_site_packages(venv) / "still.py").exists()


def test_the_wheel_of_torch_is_looked_for_on_its_own_index_last(
    venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = _make_wheel(tmp_path / "torch-index" / "torch", "torch", "2.0+cpu")
    monkeypatch.setenv("TRISTILL_TORCH_INDEX", (tmp_path / "torch-index").as_uri())
    _install(venv, _write_lock(tmp_path / "a.lock", "torch==2.0+cpu", digest))
    assert (packages.find_site_packages(venv) / "torch.py").is_file()
    assert (tmp_path / "log").read_text().count("+ ") == 2


def test_the_index_of_torch_is_not_asked_for_other_packages(
    venv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRISTILL_TORCH_INDEX", "http://127.0.0.1:9")
    with pytest.raises(HostError, match="No matching distribution found for absent==1"):
        _install(venv, _write_lock(tmp_path / "a.lock", "absent==1", "0" * 64))
    assert "127.0.0.1" not in (tmp_path / "log").read_text()


def test_pip_settings_that_would_lead_elsewhere_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("PIP_TARGET", "PIP_USER", "PYTHONPATH"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("PIP_CERT", "kept")
    variables = packages.make_host_environment()
    assert not {"PIP_TARGET", "PIP_USER", "PYTHONPATH"} & variables.keys()
    assert variables["PIP_CERT"] == "kept"
