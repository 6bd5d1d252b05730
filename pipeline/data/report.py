"""Stage: a data set -> report.html, one page that a person looks at before training.

In: `dataset`, the `rows` that it was made from (for what cleaning left out) and `text` (for its
tokenizer). Numbers and plots of every split, and a browser of rows spread evenly over them, in
which what is supervised is coloured. Self-contained: nothing is fetched, and the page's own policy
forbids it; it runs no script but its own, named by hash there, whatever a row holds. The same bytes
from the same data set. A long row is shown without its middle, and says so.

An artifact of its own, which nothing is made from: another look of the page trains nothing anew.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from pipeline.data.encoding import read_tokenizer
from pipeline.data.page import BODY, SCRIPT, STYLE, TITLE
from pipeline.data.plots import make_bars, make_bins, make_histogram
from pipeline.data.statistics import (
    SHARE_BINS,
    SPLITS,
    Statistics,
    read_batches,
    read_statistics,
)
from pipeline.data.view import split_pieces
from pipeline.log import say
from pipeline.page.document import make_document, write_data

REPORT = "report.html"

_ROWS_SHOWN = 200  # of each split
_EXAMPLES = 5  # of each reason to leave a row out
_FIRST_TOKENS, _LAST_TOKENS = 700, 300  # of a row

# Of a piece on the page; the page's script knows them by these numbers.
_TAUGHT, _CONTROL, _GAP = 1, 2, 4


@dataclass(frozen=True, kw_only=True)
class Options:
    """None: what is shown is what is there."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """One split: its name, its Arrow file and its numbers."""

    name: str
    arrow: Path
    statistics: Statistics

    @property
    def title(self) -> str:
        """The name as a person reads it."""
        return self.name.replace("_", " ")


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """Rows that never came to a split, by reason, and where the first few of each stand."""

    dropped: Mapping[str, int]
    examples: Mapping[str, Sequence[str]]


def read_cleaning(rows: Path) -> Cleaning:
    """Return what cleaning.json says; nothing where the rows were made without cleaning."""
    path = rows / "cleaning.json"
    if not path.exists():
        return Cleaning(dropped={}, examples={})
    document = json.loads(path.read_text(encoding="utf-8"))
    examples: dict[str, list[str]] = {}
    for source in document["sources"]:
        for reason, places in source["examples"].items():
            examples.setdefault(reason, []).extend(places)
    return Cleaning(dropped=document["dropped"], examples=examples)


def read_splits(dataset: Path) -> list[Split]:
    """Return the data set's splits, counted from what training reads."""
    told = json.loads((dataset / "statistics.json").read_text(encoding="utf-8"))
    paths = {name: dataset / f"{name}.arrow" for name in SPLITS}
    return [
        Split(name=name, arrow=path, statistics=read_statistics(path, told[name]["dropped"]))
        for name, path in paths.items()
    ]


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Write report.html."""
    splits, tokenizer = read_splits(inputs["dataset"]), read_tokenizer(inputs["text"])
    page = make_page(splits, read_cleaning(inputs["rows"]), tokenizer).encode("utf-8")
    (out / REPORT).write_bytes(page)
    say(f"  {REPORT}: {len(page):,} bytes; open it in a browser")


def make_page(
    splits: Sequence[Split], cleaning: Cleaning, tokenizer: PreTrainedTokenizerFast
) -> str:
    """Return the page."""
    rows = [row for split in splits for row in _make_rows(split, tokenizer)]
    total = sum(split.statistics.rows for split in splits)
    sample = "All rows." if len(rows) == total else f"{len(rows):,} of {total:,}, spread evenly."
    body = BODY.format(
        table=_make_table(splits),
        plots="\n".join(_make_plots(splits, cleaning.dropped)),
        examples=_make_examples(cleaning),
        sample=sample,
        options="".join(f'<option value="{escape(s.name)}">{s.title}</option>' for s in splits),
        data=write_data(rows),
    )
    return make_document(title=TITLE, body=body, style=STYLE, script=SCRIPT)


def _make_table(splits: Sequence[Split]) -> str:
    heads = ["split", "rows", "tokens", "supervised", "share"]
    heads += ["shortest row", "median", "95 % up to", "longest row"]
    lines = []
    for split in splits:
        found = split.statistics
        share = found.supervised_tokens / max(1, found.tokens)
        numbers = [found.rows, found.tokens, found.supervised_tokens]
        cells = [split.title, *(f"{each:,}" for each in numbers), f"{share:.1%}"]
        cells += [f"{found.find_length(each):,}" for each in (0.0, 0.5, 0.95, 1.0)]
        lines.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{each}</th>" for each in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _make_plots(splits: Sequence[Split], dropped: Mapping[str, int]) -> Iterator[str]:
    shares = [
        f"{100 * n // SHARE_BINS} to {100 * (n + 1) // SHARE_BINS} %" for n in range(SHARE_BINS)
    ]
    for split in splits:
        found = split.statistics
        labels, counts = make_bins(found.rows_of_length.tolist())
        yield make_histogram(f"Tokens of a row, {split.title}", labels, counts, "rows")
        yield make_histogram(
            f"Supervised share of a row, {split.title}",
            shares,
            found.rows_of_share.tolist(),
            "rows",
        )
    # One domain alone, most often none, is no news.
    for split in splits if any(len(each.statistics.domains) > 1 for each in splits) else ():
        tokens = {name or "(none)": each.tokens for name, each in split.statistics.domains.items()}
        yield make_bars(f"Tokens by domain, {split.title}", tokens, "tokens")
    reasons = dict(dropped)
    for split in splits:
        for reason, count in split.statistics.dropped.items():
            reasons[f"{reason} ({split.title})"] = count
    left_out = {reason: count for reason, count in reasons.items() if count}
    yield make_bars("Rows left out, by reason", left_out, "rows left out")


def _make_examples(cleaning: Cleaning) -> str:
    """Return where to look: the places of a few rows of each reason."""
    items = [
        f"<dt>{escape(reason)}</dt><dd>{escape(', '.join(places[:_EXAMPLES]))}</dd>"
        for reason, places in sorted(cleaning.examples.items())
    ]
    if not items:
        return ""
    head = "<summary>Where the first rows that were left out stand</summary>"
    return f"<details>{head}<dl>{''.join(items)}</dl></details>"


def _make_rows(split: Split, tokenizer: PreTrainedTokenizerFast) -> Iterator[dict[str, object]]:
    """Yield rows spread evenly over the split, as the page's script reads them."""
    total = split.statistics.rows
    shown = min(total, _ROWS_SHOWN)
    wanted = {n * total // shown for n in range(shown)} if shown else set()
    first = 0
    for batch in read_batches(split.arrow):
        for n in sorted(
            each - first for each in wanted if first <= each < first + len(batch.row_ids)
        ):
            part = slice(int(batch.starts[n]), int(batch.stops[n]))
            yield {
                "id": batch.row_ids[n],
                "split": split.name,
                "domain": batch.domains[n],
                "source": batch.sources[n],
                "tokens": int(batch.lengths[n]),
                "supervised": int(batch.supervised[n]),
            } | _make_pieces(batch.ids[part].tolist(), batch.mask[part].tolist(), tokenizer)
        first += len(batch.row_ids)


def _make_pieces(
    ids: list[int], mask: list[int], tokenizer: PreTrainedTokenizerFast
) -> dict[str, object]:
    texts: list[str] = []
    flags: list[int] = []
    numbers: list[int] = []

    def add(start: int, stop: int) -> None:
        at = start
        for piece in split_pieces(tokenizer, ids[start:stop], mask[start:stop]):
            texts.append(piece.text)
            flags.append(_TAUGHT * piece.supervised + _CONTROL * piece.is_control)
            numbers.append(at)
            at += piece.tokens

    left_out = len(ids) - _FIRST_TOKENS - _LAST_TOKENS
    if left_out <= 0:
        add(0, len(ids))
    else:
        add(0, _FIRST_TOKENS)
        texts.append(f"\n… {left_out:,} tokens not shown …\n")
        flags.append(_GAP)
        numbers.append(_FIRST_TOKENS)
        add(len(ids) - _LAST_TOKENS, len(ids))
    return {"texts": texts, "flags": "".join(map(str, flags)), "numbers": numbers}
