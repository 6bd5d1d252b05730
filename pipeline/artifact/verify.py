"""`verify`: every byte of every artifact against its manifest; what is damaged goes to quarantine.

A manifest is held against itself (the key is the digest of its key document, the digests in that
are those of the documents beside it) and against the sha256 noted when it was sealed.
"""

from collections.abc import Sequence
from pathlib import Path

from pipeline.artifact.hashing import hash_files
from pipeline.artifact.key import make_digest, make_key
from pipeline.artifact.manifest import NAME
from pipeline.artifact.store import Artifact, Damage, find_misfits


def find_damage(artifacts: Sequence[Artifact]) -> list[Damage]:
    """Return every file that is missing, extra, of another size, unreadable or of other bytes.

    An artifact that is removed meanwhile is no damage.
    """
    found: list[Damage] = []
    for artifact in artifacts:
        found += _check_manifest(artifact) + find_misfits(artifact) + _find_extra(artifact)
    found += _hash_all(artifacts, {(each.artifact, each.path) for each in found})
    present = {artifact.path.name for artifact in artifacts if artifact.path.is_dir()}
    return sorted(
        (each for each in found if each.artifact in present),
        key=lambda each: (each.artifact, each.path),
    )


def _hash_all(artifacts: Sequence[Artifact], known: set[tuple[str, str]]) -> list[Damage]:
    """Return the files of the right size whose bytes differ or cannot be read."""
    files = [
        (artifact, file)
        for artifact in artifacts
        for file in artifact.manifest.files
        if (artifact.path.name, file.path) not in known
    ]
    paths = [artifact.path / file.path for artifact, file in files]
    digests = hash_files(paths, title="verify")
    found = []
    for (artifact, file), digest in zip(files, digests, strict=True):
        if isinstance(digest, OSError):
            what = f"cannot be read: {digest.strerror}"
        elif digest != file.sha256:
            what = f"its sha256 is {digest[:12]}..., not {file.sha256[:12]}..."
        else:
            continue
        found.append(Damage(artifact=artifact.path.name, path=file.path, what=what))
    return found


def _check_manifest(artifact: Artifact) -> list[Damage]:
    manifest, document = artifact.manifest, artifact.manifest.document
    (digest,) = hash_files([artifact.path / NAME])
    noted = artifact.manifest_sha256
    if isinstance(digest, OSError):
        what = f"cannot be read: {digest.strerror}"
    elif noted is not None and digest != noted:
        what = "its sha256 is not the one noted when it was sealed"
    elif make_key(document) != artifact.key:
        what = "its key document has another key"
    elif make_digest(manifest.environment) != document.get("environment"):
        what = "its environment has another digest"
    elif make_digest(manifest.source) != document.get("source"):
        what = "its source has another digest"
    else:
        return []
    return [Damage(artifact=artifact.path.name, path=NAME, what=what)]


def _find_extra(artifact: Artifact) -> list[Damage]:
    known = {file.path for file in artifact.manifest.files} | {NAME}
    known |= {str(parent) for path in known for parent in Path(path).parents}
    return [
        Damage(artifact=artifact.path.name, path=path, what="not in the manifest")
        for path in sorted(
            each.relative_to(artifact.path).as_posix() for each in artifact.path.rglob("*")
        )
        if path not in known
    ]
