"""How the caller's pip is configured, made fit for an image's build.

A build cannot reach files of this machine: of those that lie in find-links folders and in indexes
under file://, the ones that a lock names by their hash are gathered into one folder, which the
build mounts. What leads to other machines goes into a configuration that the build mounts as a
secret: no layer, history or cache key holds it.
"""

import configparser
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urljoin, urlsplit

from pipeline.artifact.hashing import hash_file

WHEELS = PurePosixPath("/wheels")
"""Where a build sees the gathered files."""

CA_BUNDLE = PurePosixPath("/etc/ssl/certs/ca-certificates.crt")
"""Where a build sees the caller's certificates."""

_OF_ALL_USERS = Path("/etc/pip.conf")
_SECTIONS = ("global", "download", "install")
_INDEXES = ("index-url", "extra-index-url")
# Of all settings, those that say where packages come from and how that is reached.
_REMOTE = ("default-timeout", "no-index", "proxy", "retries", "timeout", "trusted-host")
_CERTIFICATES = ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
_PIN = re.compile(r"^([a-z0-9-]+)==")
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_LINK = re.compile(r"""href=["']([^"']+)["']""")


def read_settings(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the caller's settings by their long options' names: files, then variables."""
    settings: dict[str, str] = {}
    parser = configparser.RawConfigParser()
    parser.read(_list_files(variables), encoding="utf-8")
    for section in _SECTIONS:
        if parser.has_section(section):
            settings |= {name.replace("_", "-"): value for name, value in parser.items(section)}
    settings |= {
        name.removeprefix("PIP_").lower().replace("_", "-"): value
        for name, value in variables.items()
        if name.startswith("PIP_") and value
    }
    if index := variables.get("TRISTILL_TORCH_INDEX"):
        settings["extra-index-url"] = f"{settings.get('extra-index-url', '')} {index}"
    return settings


def _list_files(variables: Mapping[str, str]) -> list[Path]:
    """Return where pip looks, the strongest last."""
    chosen = variables.get("PIP_CONFIG_FILE", "")
    if chosen == os.devnull:
        return []
    home = Path.home()
    of_all = variables.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")
    of_user = Path(variables.get("XDG_CONFIG_HOME") or home / ".config")
    paths = [*(Path(each) / "pip" / "pip.conf" for each in of_all), _OF_ALL_USERS]
    paths += [home / ".pip" / "pip.conf", of_user / "pip" / "pip.conf"]
    return paths + ([Path(chosen)] if chosen else [])


def make_configuration(
    settings: Mapping[str, str], *, with_wheels: bool, with_certificates: bool
) -> str:
    """Return the build's pip.conf: nothing in it is a path of this machine."""
    kept = {name: settings[name] for name in _REMOTE if name in settings}
    for name in (*_INDEXES, "find-links"):
        remote = [word for word in settings.get(name, "").split() if _find_local(word) is None]
        if remote:
            kept[name] = "\n    ".join(remote)
    if _find_local(settings.get("index-url", "http://")) and not kept.keys() & set(_INDEXES):
        kept["no-index"] = "true"
    if with_wheels:
        kept["find-links"] = "\n    ".join([str(WHEELS), *kept.get("find-links", "").split()])
    if with_certificates:
        kept["cert"] = str(CA_BUNDLE)
    return "".join(["[global]\n", *(f"{name} = {value}\n" for name, value in sorted(kept.items()))])


def find_certificates(settings: Mapping[str, str], variables: Mapping[str, str]) -> Path | None:
    """Return the caller's own bundle of certificates, if one is set."""
    named = [settings.get("cert"), *map(variables.get, _CERTIFICATES)]
    return next((Path(path) for path in named if path and Path(path).is_file()), None)


def gather_wheels(settings: Mapping[str, str], locks: Sequence[Path], out: Path) -> list[Path]:
    """Put those of this machine's files into `out` that a lock names by their hash; return them."""
    pins = _read_pins(locks)
    out.mkdir(parents=True, exist_ok=True)
    gathered: list[Path] = []
    for path in _list_candidates(settings, pins.keys()):
        target = out / path.name
        if not target.exists() and hash_file(path) in pins[_read_project(path.name)]:
            _place(path, target)
            gathered.append(target)
    return gathered


def _read_pins(locks: Iterable[Path]) -> dict[str, set[str]]:
    """Return each locked project's hashes."""
    pins: dict[str, set[str]] = {}
    for lock in locks:
        hashes: set[str] = set()
        for line in lock.read_text(encoding="utf-8").splitlines():
            if pin := _PIN.match(line):
                hashes = pins.setdefault(pin[1], set())
            hashes.update(_HASH.findall(line))
    return pins


def _list_candidates(settings: Mapping[str, str], projects: Iterable[str]) -> Iterator[Path]:
    """Yield the files of the projects that lie on this machine."""
    wanted = set(projects)
    paths: list[Path] = []
    for place in map(_find_local, settings.get("find-links", "").split()):
        if place is not None:
            paths += sorted(place.iterdir()) if place.is_dir() else _read_links(place)
    for name in _INDEXES:
        for root in map(_find_local, settings.get(name, "").split()):
            if root is not None:
                pages = (root / project / "index.html" for project in sorted(wanted))
                paths += [path for page in pages for path in _read_links(page)]
    yield from (path for path in paths if _read_project(path.name) in wanted and path.is_file())


def _read_links(page: Path) -> list[Path]:
    """Return the files of this machine that a page links to."""
    if not page.is_file():
        return []
    links = _LINK.findall(page.read_text(encoding="utf-8", errors="replace"))
    found = [_find_local(urljoin(page.absolute().as_uri(), link)) for link in links]
    return [path for path in found if path is not None]


def _find_local(word: str) -> Path | None:
    """Return the path that a location means; None when it is on another machine."""
    url = urlsplit(word)
    if url.scheme == "file":
        return Path(unquote(url.path))
    return None if "://" in word or not word else Path(word).expanduser().absolute()


def _read_project(name: str) -> str:
    """Return the normalised project of a wheel's or an sdist's file name."""
    stem = name if name.endswith(".whl") else name.rpartition("-")[0]
    project = stem.partition("-")[0] if name.endswith(".whl") else stem
    return re.sub(r"[-_.]+", "-", project).lower()


def _place(path: Path, target: Path) -> None:
    """Link where that is possible: such files are large."""
    try:
        os.link(path.resolve(), target)
    except OSError:
        shutil.copyfile(path, target)
