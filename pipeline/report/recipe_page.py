"""What a recipe has made -> report.html, one page that a person can send around.

What was built from what, how training went, what was taught, how good each file is for its size,
what the models say, how large everything is and how long it took, and how to check all of it.
Self-contained: it fetches nothing and runs no script, and its own policy says so to the browser.
Only what is sealed is shown; what is not is named. Made on the host: it is no artifact, for it
tells times.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from pipeline.artifact.provenance import Lineage
from pipeline.artifact.store import Artifact
from pipeline.data.plots import make_histogram
from pipeline.page import curves
from pipeline.page.document import make_document
from pipeline.page.style import STYLE
from pipeline.report import answer_samples, lineage_graph, quality_plot
from pipeline.report.answer_samples import choose, make_answers, read_asked
from pipeline.report.lineage_graph import make_graph
from pipeline.report.mask_samples import make_samples, read_samples
from pipeline.report.quality import BASE, Model, describe_models, read_models, read_summary
from pipeline.report.quality_plot import format_size, make_quality_plot
from pipeline.report.table import format_seconds
from pipeline.report.training import Run
from pipeline.report.training_page import RUN_STYLE, make_numbers, make_plots

_STYLE = """\
.wide + .plots, .plots + .wide { margin-top: 1rem; }
.tiles { display: flex; flex-wrap: wrap; gap: .7rem; margin: 1rem 0; }
.tiles div {
  flex: 1 1 9rem; padding: .7rem .9rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem;
}
.tiles b { display: block; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--soft); font-size: .9rem; }
.pair { display: grid; gap: 1rem; grid-template-columns: minmax(0, 1fr); align-items: start; }
@media (min-width: 60rem) { .pair { grid-template-columns: minmax(0, 1fr) minmax(0, 1fr); } }
th, td { white-space: nowrap; padding-right: 1.1rem; }
td.digest { font: 12px/1.6 ui-monospace, monospace; text-align: left; }
th.digest { text-align: left; }
pre { max-width: 100%; overflow-x: auto; font: 13px/1.5 ui-monospace, monospace; }
summary { cursor: pointer; }
"""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What the page is about: the model's name, one sentence on it, the recipe's text as others may
    read it, what is sealed in the order of building, what is not, and the lineage of all that."""

    name: str
    about: str
    recipe: str
    sealed: Mapping[str, Artifact]
    run: Run | None
    missing: Sequence[str]
    lineage: Lineage


def make_page(subject: Subject) -> str:
    """Return the page; the same from the same store."""
    style = "".join(
        (
            *(STYLE, curves.STYLE, RUN_STYLE, quality_plot.STYLE),
            *(lineage_graph.STYLE, answer_samples.STYLE, _STYLE),
        )
    )
    sections = (
        f"<h2>{escape(title)}</h2>{content}" if title else content
        for title, content in _list_sections(subject)
        if content
    )
    head = f"<h1>{escape(subject.name)}</h1>\n<p>{escape(subject.about)}</p>"
    return make_document(title=subject.name, body="\n".join((head, *sections)), style=style)


def _list_sections(subject: Subject) -> Iterator[tuple[str, str]]:
    models = read_models(subject.sealed)
    yield "", _make_facts(subject, models)
    yield "How good each model is", _make_quality(models)
    yield "How training went", _make_training(subject)
    yield "What it was taught", _make_taught(subject)
    yield "What the models say", _make_said(subject)
    yield "What was made from what", _make_making(subject)
    yield "How to check it", _make_provenance(subject)


def _make_facts(subject: Subject, models: Sequence[Model]) -> str:
    facts: dict[str, str] = {}
    files = [each for each in models if each.size_bytes]
    before = next((each for each in models if each.title == BASE), None)
    if files:
        smallest = min(files, key=lambda each: each.size_bytes)
        start = f"{before.accuracy:.1%} → " if before else ""
        facts[f"held-out accuracy, {smallest.type}"] = f"{start}{smallest.accuracy:.1%}"
        facts[f"smallest file, {smallest.type}"] = format_size(smallest.size_bytes)
    summary = read_summary(subject.sealed)
    if {"loss_before", "loss_after"} <= summary.keys():
        losses = (f"{summary[name]:.3g}" for name in ("loss_before", "loss_after"))
        facts["held-out loss"] = " → ".join(losses)
    seconds = [each.seconds for each in subject.sealed.values() if each.seconds is not None]
    facts["to build all of it"] = _format_duration(sum(seconds))
    tiles = (
        f"<div><b>{escape(told)}</b><span>{escape(of)}</span></div>" for of, told in facts.items()
    )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _make_quality(models: Sequence[Model]) -> str:
    if not models:
        return "<p>No model was asked anything: the recipe's answers are not built.</p>"
    headings, rows = describe_models(models)
    plot = make_quality_plot("Held-out accuracy by size of the file", models)
    words = (
        "Every file was asked the same problems through the server. A whisker is the 95 %"
        " interval of its accuracy (Wilson)."
    )
    smallest = min(models, key=lambda each: each.size_bytes or math.inf)
    plots = f"{plot}{_make_depths(smallest)}"
    domains = _make_domains(smallest)
    return f'<p>{words}</p>{make_table(headings, rows)}<div class="plots">{plots}</div>{domains}'


def _make_depths(model: Model) -> str:
    """Return the distribution of the depth of a model's reasoning; "" where it was not measured."""
    counts = model.score.get("reasoning", {}).get("depth", {}).get("tenths", [])
    if not counts:
        return ""
    labels = [f"{n / 10:.1f} to {(n + 1) / 10:.1f}" for n in range(len(counts))]
    return make_histogram(f"Depth of the reasoning, {model.title}", labels, counts, "answers")


def _make_domains(model: Model) -> str:
    domains = model.score.get("domains", {})
    if len(domains) < 2:
        return ""
    rows = [
        [
            name or "(none)",
            f"{each['correct'] / each['total']:.1%}",
            f"{each['correct']:,} of {each['total']:,}",
            f"{each['steps']:.1f}",
            f"{each['depth']:.2f}",
        ]
        for name, each in domains.items()
    ]
    headings = [f"{model.title}, by domain", "accuracy", "right", "steps", "depth"]
    return make_table(headings, rows)


def _make_training(subject: Subject) -> str:
    summary = read_summary(subject.sealed)
    told = ""
    if {"loss_before", "loss_after", "steps"} <= summary.keys():
        told = (
            f"<p>Held-out loss {summary['loss_before']:.4f} before, {summary['loss_after']:.4f}"
            f" after {summary['steps']:,} steps.</p>"
        )
    if subject.run is None:
        return told
    return f"{told}{make_plots(subject.run)}{make_numbers(subject.run)}"


def _make_taught(subject: Subject) -> str:
    samples = read_samples(subject.sealed)
    if not samples:
        return "<p>No row is shown: build <code>dataset-report</code>, and this page again.</p>"
    return (
        "<p>Coloured and underlined: supervised, the model learns to write it. Violet: a control"
        f" token, not text that is spelled like one.</p>{make_samples(samples)}"
    )


def _make_said(subject: Subject) -> str:
    asked = read_asked(subject.sealed)
    if not asked:
        return ""
    disputed = sum(each.is_disputed for each in asked)
    words = f"On {disputed:,} of {len(asked):,} problems the distilled models do not agree."
    return f"<p>{words} Those come first.</p>{make_answers(choose(asked))}"


def _make_making(subject: Subject) -> str:
    artifacts = subject.lineage.artifacts
    rows = [
        [
            each.name,
            f"{each.manifest.size_bytes:,}",
            format_seconds(each.seconds),
            each.manifest.sha256,
        ]
        for each in artifacts
    ]
    missing = ""
    if subject.missing:
        missing = f"<p>Not built: {escape(', '.join(subject.missing))}.</p>"
    table = make_table(["artifact", "bytes", "seconds", "sha256"], rows, digests={3})
    graph = make_graph("What was made from what", artifacts)
    return f'<div class="pair">{graph}{table}</div>{missing}'


def _make_provenance(subject: Subject) -> str:
    problems = [
        f"{name}: {each.label}: {each.problem}"
        for name, inputs in (
            (each.name, subject.lineage.inputs[each.key]) for each in subject.lineage.artifacts
        )
        for each in inputs
        if each.problem
    ]
    verdict = (
        "Every input that an artifact names is in the store with the content that it had then."
        if not problems
        else f"The chain is NOT whole: {'; '.join(problems)}."
    )
    rows = [
        [each.name, each.key, each.manifest.document["environment"], each.manifest.engine]
        for each in subject.lineage.artifacts
    ]
    table = make_table(["artifact", "key", "environment", "engine"], rows, digests={1, 2})
    return (
        f"<p>{escape(verdict)} Given any copy of a file,"
        " <code>python -m pipeline show --provenance FILE</code> says the same, and"
        " <code>python -m pipeline rebuild</code> makes it again and compares every byte.</p>"
        f"<details><summary>Keys and environments</summary>{table}</details>"
        f"<details><summary>The recipe</summary><pre>{escape(subject.recipe)}</pre></details>"
    )


def make_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], digests: Collection[int] = ()
) -> str:
    """Return the table as HTML, in a box of its own that scrolls where it is too wide."""

    def write(tag: str, cells: Sequence[str]) -> str:
        begins = [
            f'<{tag} class="digest">' if n in digests else f"<{tag}>" for n in range(len(cells))
        ]
        pairs = zip(begins, cells, strict=True)
        return "".join(f"{begin}{escape(cell)}</{tag}>" for begin, cell in pairs)

    lines = "".join(f"<tr>{write('td', row)}</tr>" for row in rows)
    return (
        f'<div class="wide"><table><thead><tr>{write("th", headings)}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _format_duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
