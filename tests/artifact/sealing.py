"""Small artifacts sealed without a build, for tests."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.artifact.key import make_digest, make_key
from pipeline.artifact.manifest import Manifest
from pipeline.artifact.rule import Digest
from pipeline.artifact.seal import seal
from pipeline.artifact.steps import Step
from pipeline.artifact.store import Artifact, Store
from pipeline.artifact.workspace import make_workspace

FILES = {"config.json": b"{}", "sub/weights": bytes(range(256))}
_ENVIRONMENT = {"python": "3.11"}
_SOURCE = {"pipeline/job.py": Digest("0" * 64)}


def make_manifest(
    name: str,
    inputs: Mapping[str, Artifact] | None = None,
    options: Mapping[str, int] | None = None,
) -> Manifest:
    """Return a manifest without files, whose digests are those of the documents beside them."""
    inputs = inputs or {}
    document = {
        "format": 1,
        "rule": name,
        "stage": f"demo.{name}",
        "options": dict(options or {}),
        "inputs": {label: each.key for label, each in inputs.items()},
        "environment": make_digest(_ENVIRONMENT),
        "source": make_digest(_SOURCE),
    }
    return Manifest(
        files=(),
        document=document,
        environment=_ENVIRONMENT,
        source=_SOURCE,
        inputs={label: each.manifest.content_sha256 for label, each in inputs.items()},
        engine="venv",
    )


def write_files(out: Path, files: Mapping[str, bytes] = FILES) -> Path:
    """Write the files below a new directory."""
    out.mkdir()
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    return out


def seal_small(
    store: Store,
    name: str = "text",
    *,
    inputs: Mapping[str, Artifact] | None = None,
    options: Mapping[str, int] | None = None,
    files: Mapping[str, bytes] = FILES,
) -> Artifact:
    """Seal the files as an artifact of its own key."""
    manifest = make_manifest(name, inputs, options)
    with make_workspace(store.workspaces, name) as work:
        return seal(
            store,
            write_files(work / "out", files),
            key=make_key(manifest.document),
            name=name,
            manifest=manifest,
            seconds=1.5,
        )


def damage_file(path: Path, how: str) -> None:
    """Damage a sealed file: flipped, truncated, missing or extra (beside it)."""
    path.parent.chmod(0o755)
    if path.exists():
        path.chmod(0o644)
    if how == "flipped":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "missing":
        path.unlink()
    elif how == "extra":
        path.with_name("extra").write_text("x")
    else:
        raise AssertionError(how)


def seal_step(step: Step, store: Store) -> None:
    """Seal a file as what the step would make."""
    with make_workspace(store.workspaces, step.rule.name) as work:
        (work / "out").mkdir()
        (work / "out" / "file").write_text(step.rule.name)
        manifest = Manifest(
            files=(),
            document=step.document,
            environment=step.environment,
            source=step.source,
            inputs={label: Digest("0" * 64) for label in step.rule.inputs},
            engine="venv",
        )
        seal(store, work / "out", key=step.key, name=step.rule.name, manifest=manifest, seconds=0)
