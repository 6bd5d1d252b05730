"""The digest of an image covers what pins it; the locks name every byte and no machine."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.artifact.key import make_digest
from pipeline.engine import image
from pipeline.engine.container_image import WHEELS, sum_wheel_bytes
from pipeline.engine.image import (
    IMAGES,
    LOCKS,
    make_environment_document,
)
from pipeline.engine.locks import NAMES

# All but the digests of pulled images.
_LOCKS = sorted(lock for lock in LOCKS.glob("*.lock") if lock.name != "images.lock")
_PINNED = re.compile(r"[a-z0-9-]+==[0-9][^ ]*( ; [^\\]+)?( \\)?")
_HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def _read_pins(lock: Path) -> dict[str, str]:
    """Return each package's version."""
    lines = lock.read_text().splitlines()
    pins = (re.match(r"([a-z0-9-]+)==(\S+)", line) for line in lines)
    return {pin[1]: pin[2] for pin in pins if pin}


def test_each_image_has_its_own_digest() -> None:
    assert len({make_digest(make_environment_document(each)) for each in IMAGES.values()}) == len(
        IMAGES
    )


def test_a_variable_a_lock_and_the_flags_change_the_digest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serve = IMAGES["serve"]
    digests = {make_digest(make_environment_document(serve))}
    other = replace(serve, variables={**serve.variables, "TZ": "CET"})
    digests.add(make_digest(make_environment_document(other)))
    monkeypatch.setattr(image, "LLAMA_FLAGS", (*image.LLAMA_FLAGS, "-DGGML_LTO=ON"))
    digests.add(make_digest(make_environment_document(serve)))
    for lock in ("serve.lock", "llama.lock"):
        (tmp_path / lock).write_bytes((LOCKS / lock).read_bytes() + b"# changed\n")
    monkeypatch.setattr(image, "LOCKS", tmp_path)
    digests.add(make_digest(make_environment_document(serve)))
    assert len(digests) == 4


def test_the_digest_names_no_place() -> None:
    for each in IMAGES.values():
        assert str(LOCKS.parent) not in str(make_environment_document(each))


@pytest.mark.parametrize("lock", _LOCKS, ids=lambda lock: lock.name)
def test_a_lock_holds_pins_and_hashes_alone(lock: Path) -> None:
    lines = [line for line in lock.read_text().splitlines() if not line.startswith("# ")]
    stray = [line for line in lines if not _PINNED.fullmatch(line) and not _HASH.fullmatch(line)]
    assert stray == []
    assert lines
    assert not any(_PINNED.fullmatch(line) and not line.endswith("\\") for line in lines)


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_holds_what_was_asked_for(name: str) -> None:
    pins = _read_pins(LOCKS / f"{name}.lock")
    wanted = [
        LOCKS / f"{name}.in",
        *(
            [LOCKS / "torch.in"]
            if "torch-cpu.lock" in IMAGES.get(name, IMAGES["test"]).locks
            else []
        ),
    ]
    for line in "\n".join(path.read_text() for path in wanted).splitlines():
        asked = re.match(r"([a-z][a-z0-9-]*)(?:\[\w+\])?(?:==(\S+))?", line)
        if asked:
            assert asked[1] in pins
            assert asked[2] in (None, pins[asked[1]])


def test_torch_stands_in_its_own_lock_alone() -> None:
    holders = [lock.name for lock in _LOCKS if "torch" in _read_pins(lock)]
    assert holders == ["torch-cpu.lock", "torch-cuda.lock"]
    cpu, cuda = (_read_pins(LOCKS / name)["torch"] for name in holders)
    assert cpu == f"{cuda}+cpu"
    shared = (_read_pins(LOCKS / name).keys() for name in IMAGES["train-cuda"].locks)
    assert not set.intersection(*map(set, shared))


def test_the_size_of_the_wheels_is_that_of_these_locks() -> None:
    sizes = json.loads(WHEELS.read_text())
    locks = IMAGES["train-cuda"].locks
    assert sizes.keys() == set(locks)
    digests = image.make_files_document(*(LOCKS / lock for lock in locks))
    assert {lock: sizes[lock]["sha256"] for lock in locks} == digests, "run `make locks`"
    assert 2.5e9 < (sum_wheel_bytes("train-cuda") or 0) < 3.5e9
    assert sum_wheel_bytes("train") is None


def test_train_and_convert_agree_on_what_both_have() -> None:
    train, convert = _read_pins(LOCKS / "train.lock"), _read_pins(LOCKS / "convert.lock")
    assert {name: train[name] for name in train.keys() & convert.keys()} == {
        name: convert[name] for name in train.keys() & convert.keys()
    }
