"""Stage: the recipe's own training rows -> which columns of the weights matter most.

In: `base`, `adapter` and `rows`. Out: imatrix.gguf, made by llama.cpp's llama-imatrix. Rows spread
evenly over train.jsonl are rendered as training renders them and read by the distilled model in
Q8_0, whose activations are near enough and which needs half the memory of BF16. The output head is
left out, as is llama-imatrix's default. What stays true: the same bytes from the same inputs on
the same machine, for any one number of threads; nothing is drawn at random.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoint import gguf
from pipeline.checkpoint.imatrix_file import IMATRIX, read_imatrix
from pipeline.checkpoint.llama_source import read_shapes, run_tool
from pipeline.checkpoint.weights import write_small_files
from pipeline.errors import StageError
from pipeline.log import say, step
from pipeline.sft.chat import make_messages, read_tokenizer, render, render_conversation
from pipeline.sft.trace import make_assistant_text

# Tokens that are read at a time, each such chunk on its own: llama-imatrix's default.
CHUNK_TOKENS = 512

# It refuses less than two chunks.
_LEAST_TOKENS = 2 * CHUNK_TOKENS

# The file keeps the text's path as it is given, so this is relative.
_TEXT = "calibration.txt"


@dataclass(frozen=True, kw_only=True)
class Options:
    calibration: int
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
            _write_text(rows, inputs["base"], scratch)
        form = gguf.Options(type="Q8_0", model_name="calibration", tensor_types=())
        gguf.run(model, form, scratch)
        with step("measure the columns"):
            _run_imatrix(scratch, options.cpu_threads)
        _check(scratch)
        (scratch / IMATRIX).rename(out / IMATRIX)


def _read_rows(path: Path, count: int) -> list[dict[str, str]]:
    """Return so many of the rows, spread evenly: files are often sorted by subject."""
    lines = path.read_bytes().splitlines()
    if count > len(lines):
        say(f"note: {count} rows are asked for, and there are {len(lines)}")
        count = len(lines)
    return [json.loads(lines[index * len(lines) // count]) for index in range(count)]


def _write_text(rows: list[dict[str, str]], base: Path, scratch: Path) -> None:
    """Write the conversations, one after the other, with their control tokens."""
    small = scratch / "small"
    small.mkdir()
    write_small_files(base, small)
    tokenizer = read_tokenizer(small)
    texts, tokens = [], 0
    for row in rows:
        on = f"row {row['id']}: {row['problem'][:60]!r}"
        answer = make_assistant_text(row["thinking"], row["solution"])
        messages = make_messages(row["problem"], answer)
        tokens += len(render(tokenizer, messages, on=on).input_ids)
        texts.append(render_conversation(tokenizer, messages, on=on))
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
