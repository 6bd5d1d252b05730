"""Stage: the recipe's own training rows -> which columns of the weights matter most.

In: `base`, `adapter` and `rows`. Out: imatrix.gguf, made by llama.cpp's llama-imatrix. Rows spread
evenly over train.jsonl are rendered and fitted as for training (of raw text that becomes several
rows, one is taken) and read by the distilled model in Q8_0, whose activations are near enough and
which needs half the memory of BF16. The output head is left out, as is llama-imatrix's default.
What stays true: the same bytes from the same inputs on the same machine, for any one number of
threads; nothing is drawn at random.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoint import gguf
from pipeline.checkpoint.imatrix_file import IMATRIX, read_imatrix
from pipeline.checkpoint.llama_source import read_shapes, run_tool
from pipeline.checkpoint.weights import write_small_files
from pipeline.data.encoding import decode
from pipeline.data.fitting import fit
from pipeline.data.rendering import Renderer
from pipeline.data.row import Row, parse_row
from pipeline.data.style import Style
from pipeline.errors import StageError
from pipeline.log import say, step

# Tokens that are read at a time, each such chunk on its own: llama-imatrix's default.
CHUNK_TOKENS = 512

# It refuses less than two chunks.
_LEAST_TOKENS = 2 * CHUNK_TOKENS

# The file keeps the text's path as it is given, so this is relative.
_TEXT = "calibration.txt"


@dataclass(frozen=True, kw_only=True)
class Options:
    calibration: int
    chat_template: str
    sequence_length: int
    too_long: str
    thinking: str
    cpu_threads: int


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Write the importance matrix of `base` with `adapter` merged in.

    Raises StageError when the rows are too few, or a weight is not covered.
    """
    rows = _read_rows(inputs["rows"] / "train.jsonl", options.calibration)
    model = {label: inputs[label] for label in ("base", "adapter") if label in inputs}
    with tempfile.TemporaryDirectory(dir=out) as folder:
        scratch = Path(folder)
        with step(f"render {len(rows)} rows"):
            _write_text(rows, inputs["base"], options, scratch)
        form = gguf.Options(
            type="Q8_0",
            model_name="calibration",
            tensor_types=(),
            chat_template=options.chat_template,
        )
        gguf.run(model, form, scratch)
        with step("measure the columns"):
            _run_imatrix(scratch, options.cpu_threads)
        _check(scratch)
        (scratch / IMATRIX).rename(out / IMATRIX)


def _read_rows(path: Path, count: int) -> list[Row]:
    """Return so many of the rows, spread evenly: files are often sorted by subject."""
    with path.open("rb") as lines:
        present = sum(1 for _ in lines)
    if count > present:
        say(f"note: {count} rows are asked for, and there are {present}")
        count = present
    chosen = {index * present // count for index in range(count)}
    with path.open("rb") as lines:
        return [parse_row(line) for number, line in enumerate(lines) if number in chosen]


def _write_text(rows: list[Row], base: Path, options: Options, scratch: Path) -> None:
    """Write the conversations, one after the other, with their control tokens."""
    small = scratch / "small"
    small.mkdir()
    write_small_files(base, small, options.chat_template)
    renderer = Renderer(small, Style(thinking=options.thinking))
    texts, tokens, limit = [], 0, options.sequence_length
    for number, row in enumerate(rows):
        on = f"row {row.id} ({row.source})"
        pieces = fit(renderer, row, limit=limit, too_long=options.too_long, on=on)
        _, fitted = pieces[number % len(pieces)]
        tokens += len(fitted.input_ids)
        texts.append(decode(renderer.tokenizer, fitted.input_ids, bare=False))
    if tokens < _LEAST_TOKENS:
        raise StageError(
            "the rows are too few for an importance matrix",
            on=f"{len(rows)} rows, {tokens} tokens",
            why=f"llama-imatrix reads whole chunks of {CHUNK_TOKENS} tokens, at least two",
            then="raise gguf.calibration in the recipe; 100,000 tokens are a good measure",
        )
    (scratch / _TEXT).write_bytes("".join(texts).encode("utf-8"))
    say(f"  {tokens:,} tokens, {tokens // CHUNK_TOKENS} chunks of {CHUNK_TOKENS}")


def _run_imatrix(scratch: Path, threads: int) -> None:
    run_tool(
        "llama-imatrix",
        *("--model", gguf.GGUF, "--file", _TEXT, "--output", IMATRIX),
        # Control tokens of the template are those, not their letters.
        "--parse-special",
        "--no-ppl",
        *("--ctx-size", str(CHUNK_TOKENS), "--batch-size", str(CHUNK_TOKENS)),
        *("--threads", str(threads), "--threads-batch", str(threads)),
        # Nothing is left to what the host happens to have.
        *("--device", "none", "--fit", "off", "--flash-attn", "off"),
        directory=scratch,
    )


def _check(scratch: Path) -> None:
    imatrix = read_imatrix(scratch / IMATRIX)
    imatrix.check(read_shapes(scratch / gguf.GGUF))
    say(f"importance matrix: {len(imatrix.columns)} weights, {imatrix.chunks} chunks")
