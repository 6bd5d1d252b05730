"""`export`: the recipe's files as others take them, with what they need to run and trust them."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.artifact.manifest import NAME as MANIFEST
from pipeline.artifact.provenance import find_lineage
from pipeline.artifact.store import Artifact
from pipeline.artifact.uses import using
from pipeline.evaluate.grade import THINK_START
from pipeline.export.card import Card, File, make_card
from pipeline.export.folder import (
    SUMS,
    Entry,
    list_ggufs,
    make_file_name,
    make_plain,
    write_folder,
)
from pipeline.export.modelfile import make_modelfile, read_chat
from pipeline.log import say
from pipeline.plan import list_targets
from pipeline.project import Project, open_project
from pipeline.report.quality import GGUF, read_json, read_lines
from pipeline.report.recipe_page import make_page
from pipeline.report.recipe_text import make_hub_id, name_source, read_public_text
from pipeline.report.table import format_table
from pipeline.serve.gguf_file import read_gguf
from pipeline.verbs.report import NAME as REPORT
from pipeline.verbs.report import make_subject

_CHAT = "ollama"
_ADDS_BOS = "tokenizer.ggml.add_bos_token"


def run(arguments: argparse.Namespace) -> None:
    """Put the recipe's files into a folder for Ollama, LM Studio, Jan or the hub."""
    project = open_project(arguments)
    directory = arguments.to or project.links / "export"
    export(project, arguments.recipe, directory)
    sys.stdout.write(make_listing(directory))


def preview(arguments: argparse.Namespace) -> None:
    """Show the plan of what would be exported, and say where to."""
    from pipeline.verbs.plan import show

    project = open_project(arguments, planning=True)
    show(project, [*list_targets(project.rules, []), _CHAT])
    say(f"would write {arguments.to or project.links / 'export'}")


def export(project: Project, recipe: Path, directory: Path) -> None:
    """Build what is missing and write the folder; UsageError where something else lies there."""
    wanted = [*list_targets(project.rules, []), _CHAT]
    steps = project.make_steps([rule.name for rule in project.rules])
    with using(project.store, [step.directory for step in steps]):
        project.build(wanted)
        # What was built before and is wanted by no target, such as the data set's page, is shown.
        names = [rule.name for rule in project.rules]
        made = {step.rule.name: step.artifact for step in project.make_steps(names)}
        sealed = {name: artifact for name, artifact in made.items() if artifact}
        write_folder(directory, _list_entries(project, recipe, sealed))


def make_listing(directory: Path) -> str:
    """Return name, size and sha256 of every file of the folder, and where it is."""
    lines = (directory / SUMS).read_text(encoding="utf-8").splitlines()
    pairs = [line.split("  ", 1) for line in lines]
    rows = [(name, f"{(directory / name).stat().st_size:,}", sha256) for sha256, name in pairs]
    return format_table(("file", "bytes", "sha256"), rows) + f"\n{directory}\n"


def _list_entries(project: Project, recipe: Path, sealed: dict[str, Artifact]) -> list[Entry]:
    subject = make_subject(project, recipe, sealed)
    ggufs = list(list_ggufs(project.recipe.gguf.name, sealed))
    statements = [(each.path / MANIFEST).read_text("utf-8") for each in subject.lineage.artifacts]
    lines = [json.dumps(json.loads(each), sort_keys=True) + "\n" for each in statements]
    return [
        *ggufs,
        *_list_modelfiles(project, sealed),
        Entry(name="README.md", text=make_card(_make_card(project, recipe, sealed, ggufs))),
        Entry(name=REPORT, text=make_page(subject)),
        Entry(name="provenance.jsonl", text="".join(lines)),
    ]


def _list_modelfiles(project: Project, sealed: dict[str, Artifact]) -> list[Entry]:
    """Return `Modelfile`, of the type that the recipe serves, and one named by each other type."""
    recipe = project.recipe
    entries = []
    for file_type in recipe.gguf.types:
        metadata = read_gguf(sealed[f"{GGUF}{file_type}"].path / "model.gguf").metadata
        # A file that does not say so comes from a tokenizer that begins with BOS.
        adds_bos = bool(metadata.get(_ADDS_BOS, True))
        text = make_modelfile(
            make_file_name(recipe.gguf.name, file_type),
            read_chat(read_json(sealed[_CHAT], "ollama.json"), adds_bos=adds_bos),
            context=recipe.serve.context,
            temperature=recipe.evaluate.temperature,
            licence=recipe.export.license,
        )
        name = "Modelfile" if file_type == recipe.serve.type else f"Modelfile-{file_type}"
        entries.append(Entry(name=name, text=text))
    return entries


def _make_card(
    project: Project, recipe: Path, sealed: dict[str, Artifact], ggufs: Sequence[Entry]
) -> Card:
    told = project.recipe
    sources = [told.dataset.source, *(each.source for each in told.dataset.more)]
    files = [
        File(
            name=each.name,
            type=name,
            size_bytes=each.source.stat().st_size if each.source else 0,
            sha256=each.sha256,
        )
        for name, each in zip(told.gguf.types, ggufs, strict=True)
    ]
    files.sort(key=lambda each: each.type != told.serve.type)
    answers = (
        line.get("text", "")
        for line in read_lines(sealed.get("answers"), f"answers-{told.serve.type}.jsonl")
    )
    results = [sealed[name] for name in list_targets(project.rules, []) if name in sealed]
    return Card(
        name=make_plain(told.gguf.name),
        licence=told.export.license,
        base_model=told.export.base_model or make_hub_id(told.base.source),
        base=f"{name_source(told.base.source)} base",
        datasets=[each for each in map(make_hub_id, sources) if each],
        data=", ".join(f"{name_source(each)} traces" for each in sources),
        languages=told.export.languages,
        context=told.serve.context,
        thinks=any(THINK_START in text for text in answers),
        recipe=read_public_text(recipe),
        files=files,
        sealed=sealed,
        lineage=find_lineage(results, list(sealed.values())),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", type=Path, metavar="DIR", help="instead of out/RECIPE/export")
