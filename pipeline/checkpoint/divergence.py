"""Stage: how far each quantized file is from the 16-bit one, on answers that it never saw.

In: `rows`, `base` (for the tokenizer and the chat template), and one directory per type with its
model.gguf, BF16 among them. Out: divergence.json. Held-out rows are rendered and fitted as training
renders them, and each model reads them whole; what counts are the supervised tokens, those that it
would have to write itself. With p the probabilities by BF16 and q those by the other file:

- perplexity: exp(mean -ln q(token)).
- kl_divergence: sum p ln(p / q) over the vocabulary, in nats, for each token.
- flips: the share of tokens where the most probable one is another (what "same top p" of
  llama-perplexity leaves; cf. Dutta et al., "Accuracy is Not All You Need", 2024).
- delta_p: q(token) - p(token).

The BF16 file's logits wait in a scratch file, 4 bytes for each entry of the vocabulary and token.
"""

import json
import math
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.checkpoint.gguf import GGUF
from pipeline.checkpoint.llama_logits import open_reader
from pipeline.checkpoint.weights import write_small_files
from pipeline.data.fitting import fit
from pipeline.data.rendering import Rendered, Renderer
from pipeline.data.row import read_rows
from pipeline.data.style import Style
from pipeline.errors import StageError
from pipeline.evaluate.interval import make_interval
from pipeline.gguf_types import REFERENCE
from pipeline.log import say, step

_DIVERGENCE = "divergence.json"
# Decimals: fewer than the last bits of sums, which another CPU may round otherwise.
_DECIMALS = 9


@dataclass(frozen=True, kw_only=True)
class Options:
    """`tokens`: supervised tokens at least, whole rows of them, while there are rows."""

    types: tuple[str, ...]
    tokens: int
    chat_template: str
    sequence_length: int
    too_long: str
    thinking: str
    supervise: str
    cpu_threads: int


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one file says of n tokens: its ln q of each, and, of another file than the reference,
    the KL divergence and whether the most probable token is another. Each has shape (n,)."""

    logs_N: np.ndarray
    divergences_N: np.ndarray
    flips_N: np.ndarray


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Write divergence.json. Raises StageError when no row fits, or a file does not load."""
    threads = options.cpu_threads
    with tempfile.TemporaryDirectory(dir=out) as folder:
        scratch = Path(folder)
        write_small_files(inputs["base"], scratch, options.chat_template)
        sequences = read_sequences(inputs["rows"] / "held_out.jsonl", scratch, options)
        logits = scratch / "logits"
        with step(f"read {sum(map(count_wanted, sequences))} tokens by {REFERENCE}"):
            reference = write_logits(
                inputs[REFERENCE] / GGUF, sequences, logits=logits, threads=threads
            )
        document = {REFERENCE: _describe(reference)}
        for each in options.types:
            if each != REFERENCE:
                with step(f"read them by {each}"):
                    found = compare_logits(
                        inputs[each] / GGUF, sequences, logits=logits, threads=threads
                    )
                document[each] = _describe(found) | describe_change(reference, found)
                _say(each, document[each])
    (out / _DIVERGENCE).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def read_sequences(path: Path, text: Path, options: Options) -> list[Rendered]:
    """Return the first rows, as many as hold the tokens that are asked for, rendered by the
    tokenizer and the chat template in `text`."""
    renderer = Renderer(text, Style(supervise=options.supervise, thinking=options.thinking))
    found: list[Rendered] = []
    tokens = 0
    for row in read_rows(path):
        on = f"row {row.id} ({row.source})"
        limit = options.sequence_length
        for _, each in fit(renderer, row, limit=limit, too_long=options.too_long, on=on):
            if each.dropped is None and tokens < options.tokens:
                made = Rendered(input_ids=each.input_ids, completion_mask=each.completion_mask)
                found.append(made)
                tokens += count_wanted(made)
        if tokens >= options.tokens:
            break
    if not tokens:
        raise StageError(
            "no held-out row can be read",
            on=path.name,
            why=f"all are longer than {options.sequence_length} tokens",
            then="raise dataset.sequence_length, or set evaluate.divergence_tokens to 0",
        )
    if tokens < options.tokens:
        say(f"note: {options.tokens} tokens are asked for, and the held-out rows have {tokens}")
    return found


def count_wanted(sequence: Rendered) -> int:
    """Return how many of a sequence's tokens a model is asked for: the first has nothing before."""
    return sum(sequence.completion_mask[1:])


def write_logits(path: Path, sequences: Sequence[Rendered], *, logits: Path, threads: int) -> Seen:
    """Write the logits before each supervised token, and return what the file says of them."""
    with logits.open("wb") as file:

        def add(found_NV: np.ndarray) -> np.ndarray:
            file.write(np.ascontiguousarray(found_NV, np.float32))
            return found_NV

        return _read(path, sequences, add, threads=threads)


def compare_logits(
    path: Path, sequences: Sequence[Rendered], *, logits: Path, threads: int
) -> Seen:
    """Return what another file says of the same tokens, beside the logits that were written."""
    with logits.open("rb") as file:

        def take(found_NV: np.ndarray) -> np.ndarray:
            written = file.read(4 * found_NV.size)
            if len(written) != 4 * found_NV.size:
                raise _have_other_vocabularies(path)
            return np.frombuffer(written, np.float32).reshape(found_NV.shape)

        found = _read(path, sequences, take, threads=threads)
        if file.read(1):
            raise _have_other_vocabularies(path)
    return found


def _have_other_vocabularies(path: Path) -> StageError:
    return StageError(
        "two files of one model have different vocabularies",
        on=path.parent.name,
        why=f"it has not as many tokens as the {REFERENCE} file",
        then="build both again; a damaged file is found by `verify`",
    )


def _is_broken(path: Path) -> StageError:
    return StageError(
        "a file's logits are no numbers",
        on=path.parent.name,
        why="a weight or a scale of it is not finite",
        then="build it again; a damaged file is found by `verify`",
    )


def _read(
    path: Path,
    sequences: Sequence[Rendered],
    find_reference: Callable[[np.ndarray], np.ndarray],
    *,
    threads: int,
) -> Seen:
    """Return what the file says; `find_reference` gives the reference's logits_NV for its own."""
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    longest = max(len(each.input_ids) for each in sequences)
    with open_reader(path, longest=longest, threads=threads) as reader:
        for sequence in sequences:
            # The logits before a token are those after the one in front of it.
            wanted = [bool(each) for each in (*sequence.completion_mask[1:], 0)]
            targets = _list_targets(sequence)
            for logits_NV in reader.read(sequence.input_ids, wanted):
                if not np.isfinite(logits_NV).all():
                    raise _is_broken(path)
                tokens = [next(targets) for _ in logits_NV]
                parts.append(compare_tokens(find_reference(logits_NV), logits_NV, tokens))
    logs, divergences, flips = (np.concatenate(each) for each in zip(*parts, strict=True))
    return Seen(logs_N=logs, divergences_N=divergences, flips_N=flips)


def _list_targets(sequence: Rendered) -> Iterator[int]:
    pairs = zip(sequence.input_ids[1:], sequence.completion_mask[1:], strict=True)
    return (token for token, is_wanted in pairs if is_wanted)


def compare_tokens(
    reference_NV: np.ndarray, logits_NV: np.ndarray, tokens: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ln q(token), the KL divergence of q from p and whether the most probable token is
    another, (n,) each, of logits by the reference (p) and by another file (q)."""
    logs_p_NV, logs_q_NV = _log_softmax(reference_NV), _log_softmax(logits_NV)
    divergences = (np.exp(logs_p_NV) * (logs_p_NV - logs_q_NV)).sum(axis=1)
    logs = logs_q_NV[np.arange(len(tokens)), list(tokens)]
    flips = reference_NV.argmax(axis=1) != logits_NV.argmax(axis=1)
    # Rounding may leave less than nothing where both are the same.
    return logs, np.maximum(divergences, 0.0), flips


def _log_softmax(logits_NV: np.ndarray) -> np.ndarray:
    shifted = logits_NV.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def _describe(seen: Seen) -> dict[str, Any]:
    return {"tokens": len(seen.logs_N), "perplexity": _round(math.exp(-seen.logs_N.mean()))}


def describe_change(reference: Seen, seen: Seen) -> dict[str, Any]:
    """Return what divergence.json says of a file beside the reference."""
    count, flipped = len(seen.flips_N), int(seen.flips_N.sum())
    delta_p_N = np.exp(seen.logs_N) - np.exp(reference.logs_N)
    return {
        "perplexity_ratio": _round(math.exp((reference.logs_N - seen.logs_N).mean())),
        "kl_divergence": {
            "mean": _round(seen.divergences_N.mean()),
            "median": _round(np.median(seen.divergences_N)),
            "p99": _round(np.quantile(seen.divergences_N, 0.99)),
            "most": _round(seen.divergences_N.max()),
        },
        "flips": _round(flipped / count),
        "flips_interval": list(make_interval(flipped, count)),
        "delta_p": {
            "mean": _round(delta_p_N.mean()),
            "rms": _round(math.sqrt(np.square(delta_p_N).mean())),
        },
    }


def _round(value: float) -> float:
    return round(float(value), _DECIMALS)


def _say(name: str, found: Mapping[str, Any]) -> None:
    say(
        f"  {name}: perplexity x {found['perplexity_ratio']:.4f},"
        f" KL divergence {found['kl_divergence']['mean']:.2g},"
        f" {100 * found['flips']:.2f} % of tokens flip"
    )
