"""A run -> its page: state, numbers, warnings, curves, rows as trained on, settings, provenance.

One file that fetches nothing. While the run goes on `watch` serves the same page with a script that
asks that server, and nobody else, for what has changed. Made on the host from what lies in the
store, so that another look of the page trains nothing anew.
"""

import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from pipeline.artifact.steps import Step
from pipeline.artifact.store import Store
from pipeline.artifact.writability import find_obstacle
from pipeline.log import say
from pipeline.page import curves
from pipeline.page.curves import Curve, make_curves, smooth
from pipeline.page.document import make_document
from pipeline.page.style import STYLE
from pipeline.report.mask_samples import make_samples, read_kept
from pipeline.report.training import Run, read_run
from pipeline.report.training_warnings import find_warnings
from pipeline.sft.step_line import format_duration

_BODY = """\
<h1>{title}</h1>
<main id="run" data-state="{state}">
{run}
</main>
{sealed}
<h2>Provenance</h2>
<div class="wide">{provenance}</div>
<details><summary>Settings</summary><div class="wide">{settings}</div></details>"""

RUN_STYLE = """\
.warning {
  max-width: none; margin: .6rem 0; padding: .6rem .9rem; background: var(--card);
  color: var(--ink); border: 1px solid var(--line); border-left: .35rem solid var(--second);
  border-radius: .4rem;
}
.warning span { display: block; color: var(--soft); }
.facts td:last-child { text-align: left; overflow-wrap: anywhere; white-space: normal; }
"""

_STYLE = "#run { overflow-anchor: none; }\n"

_SCRIPT = """"use strict";
const run = document.getElementById("run");
let shown = "";
async function refresh() {
  try {
    const answer = await fetch("/run", { cache: "no-store" });
    const text = await answer.text();
    if (answer.ok && answer.headers.get("X-State") !== run.dataset.state) location.reload();
    else if (answer.ok && text !== shown) run.innerHTML = shown = text;
  } catch {
    document.title = "(watch has ended)";
  }
}
setInterval(refresh, 2000);
"""

_STATES = {
    "waiting": "It has not begun: this page follows it as soon as it does.",
    "preparing": "It has begun: the model is being loaded.",
    "training": "It is training.",
    "stopped": "It has stopped before its end; the same command goes on from its last checkpoint.",
    "sealed": "It is done and sealed.",
}


def write_report(recipe: str, step: Step, store: Store) -> None:
    """Write the page of a sealed run beside its log, and say what a person should notice.

    Where nothing can be written beside the log, as in a store that is shared read-only, it is left
    out: `watch` shows the same.
    """
    path = store.report_path(step.key, step.rule.name)
    if find_obstacle(path.parent) is not None:
        return
    run = read_run(recipe, step, store)
    for each in find_warnings(run):
        say(f"{step.rule.name}: {each.what} {each.then}")
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text(make_page(run), encoding="utf-8")
    unfinished.replace(path)


def make_page(run: Run, *, live: bool = False) -> str:
    """Return the page; a live one asks its server for what has changed every two seconds."""
    style = STYLE + curves.STYLE + RUN_STYLE + _STYLE
    title = f"Training of {run.recipe}"
    body = _BODY.format(
        title=escape(title),
        state=run.state,
        run=make_run(run),
        sealed=_make_sample(run.sample),
        settings=_make_table(sorted(run.options.items())),
        provenance=_make_table(list_provenance(run)),
    )
    script = _SCRIPT if live else ""
    return make_document(title=title, body=body, style=style, script=script, connects=live)


def make_run(run: Run) -> str:
    """Return the part of the page that changes while the run goes on."""
    return "\n".join(
        [f"<p>{_STATES[run.state]}</p>", make_numbers(run), "<h2>Curves</h2>", make_plots(run)]
    )


def make_numbers(run: Run) -> str:
    """Return the warnings, and what the run has come to."""
    warned = [
        f'<p class="warning">{escape(each.what)}<span>{escape(each.then)}</span></p>'
        for each in find_warnings(run)
    ]
    return "\n".join([*warned, f'<div class="wide">{_make_table(list_numbers(run))}</div>'])


def list_numbers(run: Run) -> list[tuple[str, str]]:
    """Return what the run has come to, as names and texts."""
    found: list[tuple[str, str]] = []
    if run.taken:
        last = run.taken[-1]
        found += [
            ("step", f"{last.step:,} of {run.steps:,}"),
            ("epoch", f"{last.epoch:.3f}"),
            ("loss", f"{run.taken[0].loss:.4g} at first, {last.loss:.4g} now"),
            ("learning rate", f"{last.learning_rate:.4g}"),
        ]
    if run.evaluations:
        best = min(run.evaluations, key=lambda each: each[1])
        found.append(("best loss on held-out rows", f"{best[1]:.4g} at step {best[0]:,}"))
    if "loss_before" in run.summary:
        before, after = run.summary["loss_before"], run.summary["loss_after"]
        found.append(("loss on held-out rows", f"{before:.4g} before, {after:.4g} after"))
    tokens = [each.tokens for each in run.taken if each.tokens is not None]
    if tokens:
        found.append(("tokens trained on", f"{sum(tokens):,}"))
    rates = [each.tokens_per_s for each in run.taken if each.tokens_per_s is not None]
    if rates:
        found.append(
            ("tokens per second", f"{statistics.median(rates):,.0f} (median of the steps)")
        )
    peaks = [each.peak_mb for each in run.taken if each.peak_mb is not None]
    if peaks:
        found.append(("peak memory", f"{max(peaks):,.0f} MB"))
    if run.devices:
        found.append(("computed on", ", then ".join(run.devices)))
    if run.left_s is not None and run.state == "training":
        found.append(("time left", format_duration(run.left_s)))
    if run.artifact and run.artifact.seconds is not None:
        found.append(("took", format_duration(run.artifact.seconds)))
    return found


def list_provenance(run: Run) -> list[tuple[str, str]]:
    """Return what the run is made from and, once it is sealed, what it has made."""
    document = run.step.document
    found = [
        ("artifact", run.step.rule.name),
        ("key", run.step.key),
        *((f"key of input {label}", key) for label, key in sorted(document["inputs"].items())),
        ("environment", f"{document['environment']} (image {run.step.rule.image})"),
        ("source of the stage", document["source"]),
    ]
    if (artifact := run.artifact) is not None:
        manifest = artifact.manifest
        found += [
            *((f"content of input {label}", each) for label, each in manifest.inputs.items()),
            ("engine", manifest.engine),
            ("sealed at", artifact.sealed_at or "-"),
            ("content", manifest.content_sha256),
            *((file.path, f"{file.size_bytes:,} bytes, {file.sha256}") for file in manifest.files),
            ("all of it", f"python -m pipeline show --provenance {run.step.rule.name}"),
        ]
    return found


def make_plots(run: Run) -> str:
    """Return the curves, each a plot."""
    return f'<div class="plots">{"".join(_draw_plots(run))}</div>'


def _draw_plots(run: Run) -> Iterator[str]:
    def pick(name: str) -> list[tuple[float, float]]:
        pairs = ((each.step, getattr(each, name)) for each in run.taken)
        return [(float(step), value) for step, value in pairs if value is not None]

    losses = pick("loss")
    yield make_curves(
        "Loss",
        [
            Curve(name="each step", points=losses, look="faint"),
            Curve(name="smoothed", points=smooth(losses)),
            Curve(name="held-out rows", points=_list_judged(run), look="second", dots=True),
        ],
    )
    yield make_curves("Learning rate", [Curve(name="", points=pick("learning_rate"))])
    yield make_curves(
        "Gradient norm",
        [Curve(name="before it is clipped to the dotted line", points=pick("grad_norm"))],
        limit=run.options.get("max_grad_norm") or None,
    )
    if accuracy := pick("accuracy"):
        curve = Curve(name="supervised tokens guessed right", points=smooth(accuracy))
        yield make_curves("Token accuracy, smoothed", [curve])
    if rates := pick("tokens_per_s"):
        yield make_curves("Throughput, tokens per second", [Curve(name="", points=rates)])
    if peaks := pick("peak_mb"):
        yield make_curves("Peak memory so far, MB", [Curve(name="", points=peaks)])


def _list_judged(run: Run) -> list[tuple[float, float]]:
    """Return the evaluations as points; where there are none, the one before and the one after."""
    if run.evaluations or "loss_before" not in run.summary:
        return [(float(step), loss) for step, loss in run.evaluations]
    return [(0.0, run.summary["loss_before"]), (float(run.steps), run.summary["loss_after"])]


def _make_sample(sample: Sequence[Mapping[str, Any]]) -> str:
    """Return rows as the trainer received them, what carries loss coloured and underlined."""
    if not sample:
        return ""
    head = (
        "<h2>Rows as the trainer received them</h2><p>Coloured and underlined: carries loss, the"
        " model learns to write it. Violet: a control token. A long row is shown by its start.</p>"
    )
    return head + make_samples([read_kept(row) for row in sample])


def _make_table(rows: Sequence[tuple[str, Any]]) -> str:
    lines = (
        f"<tr><td>{escape(name)}</td><td>{escape(_format(value))}</td></tr>" for name, value in rows
    )
    return f'<table class="facts"><tbody>{"".join(lines)}</tbody></table>'


def _format(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
