"""Two builds of an image are compared path by path: nothing that differs goes unseen."""

import io
import json
import tarfile
from typing import Any

import pytest

from pipeline.engine.image_check import compare, read_contents

_FILE = {"mode": 0o644, "mtime": 1, "uid": 0, "gid": 0}


def _make_tar(files: dict[str, tuple[bytes, dict[str, Any]]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, (content, fields) in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for field, value in fields.items():
                setattr(member, field, value)
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()


def _make_saved(layer: bytes, config: dict[str, Any] | None = None) -> io.BytesIO:
    """Return an image as `docker save` writes it."""
    document = {"rootfs": {"diff_ids": [str(hash(layer))]}, "created": "then", **(config or {})}
    manifest = [{"Config": "config.json", "Layers": ["layer.tar"]}]
    plain = {
        "manifest.json": json.dumps(manifest).encode(),
        "config.json": json.dumps(document).encode(),
        "layer.tar": layer,
    }
    return io.BytesIO(_make_tar({name: (content, {}) for name, content in plain.items()}))


def _compare(layer: bytes, config: dict[str, Any] | None = None) -> list[str]:
    first = _make_saved(_make_tar({"a": (b"one", _FILE)}))
    return list(compare(read_contents(first), read_contents(_make_saved(layer, config))))


def test_equal_images_have_no_difference() -> None:
    assert _compare(_make_tar({"a": (b"one", _FILE)})) == []


@pytest.mark.parametrize(
    ("content", "fields", "told"),
    [
        (b"two", {}, "sha256"),
        (b"one", {"mode": 0o4644}, "mode"),
        (b"one", {"mtime": 2}, "mtime"),
        (b"one", {"uid": 1}, "owner"),
        (b"", {"type": tarfile.SYMTYPE, "linkname": "b"}, "kind, link, sha256"),
    ],
)
def test_each_property_of_a_path_counts(content: bytes, fields: dict[str, Any], told: str) -> None:
    assert _compare(_make_tar({"a": (content, _FILE | fields)})) == [f"layer 0: /a: {told}"]


def test_a_path_of_one_build_alone_and_the_configuration_count() -> None:
    differences = _compare(_make_tar({"b": (b"one", _FILE)}), {"created": "now"})
    assert differences == [
        "configuration: created",
        "layer 0: /a: only in the first",
        "layer 0: /b: only in the second",
    ]
