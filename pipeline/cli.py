"""The verbs: argparse, one function per verb, and the one place where errors become exit codes.

The answer (a table, a JSON document) goes to stdout, talk to stderr.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pipeline import report
from pipeline.artifact import build as builder
from pipeline.artifact.key import REPOSITORY
from pipeline.artifact.links import write_links
from pipeline.artifact.rule import Rule
from pipeline.artifact.store import Store, find_damage, open_store
from pipeline.engine.image import make_environment_digest
from pipeline.engine.venv_engine import make_engine
from pipeline.errors import INTERRUPTED, StoreError, TristillError, UsageError, explain_os_error
from pipeline.estimate import Estimate, estimate
from pipeline.log import say, start_log
from pipeline.plan import list_targets, make_rules
from pipeline.recipe import Recipe, read_recipe
from pipeline.serve.argv import ServerSettings, make_server_argv


@dataclass(frozen=True, kw_only=True)
class Project:
    """What a verb with a recipe works on."""

    recipe: Recipe
    estimate: Estimate
    rules: tuple[Rule, ...]
    store: Store

    def make_steps(self, wanted: Sequence[str]) -> list[builder.Step]:
        environments = {rule.image: make_environment_digest(rule.image) for rule in self.rules}
        return builder.make_steps(self.rules, wanted, self.store, environments)


def _open_project(arguments: argparse.Namespace) -> Project:
    recipe = read_recipe(arguments.recipe)
    store = open_store(arguments.store)
    sizes = estimate(recipe)
    rules = make_rules(recipe, sizes, store.root / ".digests.json")
    return Project(recipe=recipe, estimate=sizes, rules=rules, store=store)


def _build(arguments: argparse.Namespace) -> None:
    """Build the named artifacts, or all that the recipe asks for; end with their table."""
    project = _open_project(arguments)
    wanted = list_targets(project.rules, arguments.artifact)
    steps = project.make_steps(wanted)
    sealed = builder.build(steps, wanted, project.store, make_engine())
    links = write_links(project.store.root.parent / "out" / project.recipe.name, sealed)
    shown = {name: sealed[name] for name in wanted} if arguments.artifact else sealed
    sys.stdout.write(report.make_artifact_table(shown, links))
    sys.stdout.write(report.make_result_table(sealed))


def _plan(arguments: argparse.Namespace) -> None:
    """Show what a build would do: cached or to build and why, bytes, memory."""
    project = _open_project(arguments)
    wanted = list_targets(project.rules, arguments.artifact)
    steps = project.make_steps(wanted)
    missing = {step.rule.name for step in builder.find_missing(steps, wanted)}
    document = report.make_plan(steps, missing, project.estimate, project.store.root)
    sys.stdout.write(_dump(document) if arguments.json else report.format_plan(document))


def _show(arguments: argparse.Namespace) -> None:
    """List the sealed artifacts of the store."""
    artifacts, unreadable = open_store(arguments.store).read_all()
    for damage in unreadable:
        say(f"damaged, not shown: {damage.artifact}/{damage.path}: {damage.what}")
    document = report.make_show(artifacts)
    sys.stdout.write(_dump(document) if arguments.json else report.format_show(document))


def _explain(arguments: argparse.Namespace) -> None:
    """Show an artifact's key document and what changed since the rule's last build."""
    project = _open_project(arguments)
    steps = project.make_steps([arguments.artifact])
    step = steps[-1]
    last = builder.find_last_document(project.store, step.rule.name)
    changes = builder.find_changes(step.document, last) if last else []
    document = report.make_explanation(step, changes)
    sys.stdout.write(_dump(document) if arguments.json else report.format_explanation(document))


def _verify(arguments: argparse.Namespace) -> None:
    """Hash every file of the named artifacts, or of all; StoreError when one differs."""
    found, unreadable = open_store(arguments.store).read_all()
    artifacts = [each for each in found if _is_named(each.path.name, arguments.artifact)]
    damage = [each for each in unreadable if _is_named(each.artifact, arguments.artifact)]
    if arguments.artifact and not artifacts and not damage:
        raise UsageError(
            "there is nothing to verify",
            on=", ".join(arguments.artifact),
            why="no sealed artifact has that name",
            then="`python -m pipeline show` lists what there is",
        )
    damage += [each for artifact in artifacts for each in find_damage(artifact, deep=True)]
    say(f"hashed {len(artifacts)} artifacts; {len(damage)} files differ")
    if arguments.json:
        sys.stdout.write(_dump({"damaged": [vars(each) for each in damage]}))
    if damage:
        raise StoreError(
            "the store is damaged",
            on=str(arguments.store),
            why="; ".join(f"{each.artifact}/{each.path}: {each.what}" for each in damage),
            then="move the named artifacts away and build again",
        )


def _is_named(directory: str, names: Sequence[str]) -> bool:
    """Return whether an artifact is meant, by its name or its directory; no names mean all."""
    return not names or directory in names or directory.partition("-")[2] in names


def _masks(arguments: argparse.Namespace) -> int:
    """Show one training row with its supervised tokens marked."""
    project = _open_project(arguments)
    engine = make_engine()
    steps = project.make_steps(["dataset"])
    sealed = builder.build(steps, ["dataset"], project.store, engine)
    engine.prepare(["train"])
    directories = [str(sealed[name].path) for name in ("dataset", "text")]
    argv = ["bin/python", "-m", "pipeline.sft.masks", *directories, arguments.row]
    return engine.interact("train", argv)


def _serve(arguments: argparse.Namespace) -> int:
    """Serve the recipe's GGUF over the OpenAI-compatible API until interrupted."""
    project = _open_project(arguments)
    engine = make_engine()
    wanted = f"gguf-{project.recipe.serve.type}"
    steps = project.make_steps([wanted])
    sealed = builder.build(steps, [wanted], project.store, engine)
    engine.prepare(["serve"])
    settings = project.recipe.serve
    say(f"serving {wanted} on http://127.0.0.1:{settings.port} (Ctrl-C stops it)")
    argv = make_server_argv(
        "llama/bin/llama-server",
        str(sealed[wanted].path / "model.gguf"),
        ServerSettings(
            host="127.0.0.1",
            port=settings.port,
            context=settings.context,
            parallel=settings.parallel,
            threads=0,
            web_page=False,
        ),
    )
    return engine.interact("serve", argv)


def _dump(document: object) -> str:
    return json.dumps(document, indent=1) + "\n"


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipeline", description=_DESCRIPTION)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, run in _VERBS.items():
        verb = verbs.add_parser(name, help=run.__doc__, description=run.__doc__)
        verb.set_defaults(run=run)
        verb.add_argument("--store", type=Path, default=REPOSITORY / "store", metavar="DIR")
        if name not in ("show", "verify"):
            verb.add_argument(
                "--recipe", type=Path, default=REPOSITORY / "recipes" / "demo.toml", metavar="FILE"
            )
        if name in ("plan", "show", "explain", "verify"):
            verb.add_argument("--json", action="store_true", help="one JSON document on stdout")
        if name in ("build", "plan", "verify"):
            verb.add_argument("artifact", nargs="*", metavar="ARTIFACT")
        if name == "explain":
            verb.add_argument("artifact", metavar="ARTIFACT")
        if name == "masks":
            verb.add_argument("row", nargs="?", default="0", help="number, from 0, or id of a row")
    return parser


_DESCRIPTION = "Distil a teacher's reasoning into an open model; every artifact built once."
_VERBS = {
    "build": _build,
    "plan": _plan,
    "show": _show,
    "explain": _explain,
    "verify": _verify,
    "masks": _masks,
    "serve": _serve,
}


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code."""
    arguments = _make_parser().parse_args(argv)
    start_log()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = arguments.run(arguments) or 0
        sys.stdout.flush()
        return code
    except TristillError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; what is left to flush goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if (explained := explain_os_error(error)) is None:
            raise
        sys.stderr.write(f"error: {explained}\n")
        return explained.exit_code
    except KeyboardInterrupt:
        say("interrupted; what was sealed stays. Run the same command again to go on.")
        return INTERRUPTED
