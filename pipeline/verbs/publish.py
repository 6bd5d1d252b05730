"""`publish`: the exported folder -> a repository of the hub.

It only says what it would send, unless `--upload` is given. No other verb sends anything anywhere.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from pipeline.engine.network import find_token
from pipeline.errors import HostError, StageError, UsageError
from pipeline.log import say
from pipeline.project import Project, open_project
from pipeline.verbs.export import export, make_listing

_IMAGE = "convert"


def run(arguments: argparse.Namespace) -> None:
    """Send the recipe's exported folder to the hub; without --upload say what would be sent."""
    project = open_project(arguments)
    repository = arguments.repository or project.recipe.export.repository
    if arguments.upload:
        _require_ready(repository, project.recipe.export.license)
    directory = project.links / "export"
    export(project, arguments.recipe, directory)
    sys.stdout.write(make_listing(directory))
    where = f"{repository or 'a repository'} ({'public' if arguments.public else 'private'})"
    if not arguments.upload:
        say(f"dry run: nothing was sent to {where}; `--upload` sends these files")
        return
    say(f"sending to {where} ...")
    upload(project, directory, repository, public=arguments.public)


def preview(arguments: argparse.Namespace) -> None:
    """Show the plan of what would be exported first; without --upload nothing would be sent."""
    from pipeline.verbs.export import preview as preview_export

    preview_export(argparse.Namespace(**vars(arguments), to=None))
    where = arguments.repository or "the recipe's repository"
    say(f"would send it to {where}" if arguments.upload else "nothing would be sent")


def _require_ready(repository: str, licence: str) -> None:
    """Raise before anything is built: what is published cannot be called back."""
    missing = [
        name for name, told in (("repository", repository), ("license", licence)) if not told
    ]
    if missing:
        raise UsageError(
            "the model cannot be published yet",
            on=f"[export] {', '.join(missing)}",
            why="the recipe does not say where to, or under which licence",
            then="set them in the recipe's table [export]",
        )
    if find_token(os.environ) is None:
        raise HostError(
            "there is no token for the hub",
            on="HF_TOKEN",
            why="nobody may write a repository without one",
            then="set HF_TOKEN, or log in by `hf auth login`; then run the same command again",
        )


def upload(project: Project, directory: Path, repository: str, *, public: bool) -> None:
    """Send the folder from an image that has the hub's library; its token goes through the
    variables of that one process alone. StageError when it was not sent, or not whole."""
    project.engine.prepare([_IMAGE])
    log = project.store.root / ".logs" / "publish.log"
    with tempfile.TemporaryDirectory(prefix="tristill-publish-") as scratch:
        (work, out) = (Path(scratch) / name for name in ("work", "out"))
        work.mkdir()
        out.mkdir()
        job = {
            "stage": "export.publish",
            "inputs": {"folder": str(directory.resolve())},
            "options": {"repository": repository, "public": public},
            "out": str(out),
            "network": True,
        }
        if project.engine.run(_IMAGE, job, work=work, log=log) != 0:
            raise StageError(
                "the model was not published",
                on=repository,
                why=f"see above, or {log}",
                then="mend that and run the same command again; what was sent is not sent twice",
            )
        sys.stdout.write((out / "published.txt").read_text(encoding="utf-8"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--repository", default="", metavar="OWNER/NAME", help="instead of the recipe's own")
    add("--upload", action="store_true", help="send it; without this nothing is sent")
    add("--public", action="store_true", help="a new repository is for all to see at once")
