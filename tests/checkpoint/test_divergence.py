"""How far a quantized file is from the 16-bit one: as llama-perplexity says where it can be asked,
which is on raw text, and on the answers of held-out rows."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from pipeline.checkpoint import divergence, gguf, llama_logits
from pipeline.checkpoint.llama_logits import open_reader
from pipeline.data.rendering import Rendered, Renderer
from pipeline.data.row import Message, Row, write_row
from pipeline.data.style import Style
from pipeline.errors import StageError
from tests.checkpoint.tiny_base import write_base

pytestmark = pytest.mark.convert

_TYPES = ("BF16", "Q4_K_M")
_OPTIONS = divergence.Options(
    types=_TYPES,
    tokens=100,
    chat_template="",
    sequence_length=256,
    too_long="drop",
    thinking="text",
    supervise="every",
    cpu_threads=1,
)
_CHUNK = 128  # tokens that llama-perplexity reads at a time; of each it asks for the second half
_BOS = 1


def make_rows(count: int) -> list[Row]:
    return [
        Row(
            id=f"h{number}",
            messages=(
                Message(role="user", content=f"What is {number * 37} + {number * 91}?"),
                Message(role="assistant", content=str(number * 128), thinking="in columns"),
            ),
        )
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folders = {name: tmp_path_factory.mktemp(name) for name in ("base", "rows", *_TYPES)}
    write_base(folders["base"])
    for each in _TYPES:
        options = gguf.Options(type=each, model_name="Tiny", tensor_types=(), chat_template="")
        gguf.run({"base": folders["base"]}, options, folders[each])
    lines = "".join(write_row(row) + "\n" for row in make_rows(10))
    (folders["rows"] / "held_out.jsonl").write_text(lines)
    return folders


def ask_llama_perplexity(model: Path, *arguments: str, directory: Path) -> str:
    tool = Path(sys.prefix) / "llama" / "bin" / "llama-perplexity"
    # As many tokens at a time as our reader computes: with fewer, attention rounds differently.
    batch = ("--batch-size", str(_CHUNK), "--ubatch-size", str(llama_logits.BATCH_TOKENS))
    sizes = ("--ctx-size", str(_CHUNK), *batch, "--threads", "1")
    done = subprocess.run(
        [tool, "--model", model, "--file", "raw.txt", *sizes, *arguments],
        cwd=directory,
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.stdout


def read_number(name: str, told: str) -> float:
    found = re.search(rf"{re.escape(name)} *[:=] *(-?[\d.]+)", told)
    assert found, told
    return float(found[1])


def cut_as_llama_perplexity(text: str, base: Path) -> list[Rendered]:
    """Each whole chunk begins with BOS, and only its second half is asked for."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    ids = [_BOS, *tokenizer.encode(text, add_special_tokens=False)]
    starts = range(0, len(ids) - _CHUNK + 1, _CHUNK)
    mask = [0] * (_CHUNK // 2 + 1) + [1] * (_CHUNK // 2 - 1)
    return [
        Rendered(input_ids=[_BOS, *ids[start + 1 : start + _CHUNK]], completion_mask=mask)
        for start in starts
    ]


def test_it_says_of_raw_text_what_llama_perplexity_says(
    inputs: Mapping[str, Path], tmp_path: Path
) -> None:
    text = "\n".join(f"{number * 7919 % 9999} and {number * 31} are more" for number in range(60))
    (tmp_path / "raw.txt").write_text(text)
    first, second = (inputs[each] / "model.gguf" for each in _TYPES)
    saved = ("--kl-divergence-base", "saved")
    told_first = ask_llama_perplexity(first, *saved, directory=tmp_path)
    told = ask_llama_perplexity(second, *saved, "--kl-divergence", directory=tmp_path)
    sequences = cut_as_llama_perplexity(text, inputs["base"])
    logits = tmp_path / "logits"
    reference = divergence.write_logits(first, sequences, logits=logits, threads=1)
    found = divergence.describe_change(
        reference, divergence.compare_logits(second, sequences, logits=logits, threads=1)
    )
    assert len(reference.logs_N) > 400
    perplexity = np.exp(-reference.logs_N.mean())
    assert perplexity == pytest.approx(read_number("Final estimate: PPL", told_first), rel=1e-4)
    ratio = read_number("Mean PPL(Q)/PPL(base)", told)
    assert found["perplexity_ratio"] == pytest.approx(ratio, abs=2e-4)
    # It keeps 16 bits of each of the reference's logarithms.
    mean = read_number("Mean    KLD", told)
    assert found["kl_divergence"]["mean"] == pytest.approx(mean, rel=0.01) != 0
    most = read_number("Maximum KLD", told)
    assert found["kl_divergence"]["most"] == pytest.approx(most, rel=0.01)
    assert 100 * found["flips"] == pytest.approx(100 - read_number("Same top p", told), abs=0.2)
    rms = read_number("RMS \u0394p", told) / 100
    assert found["delta_p"]["rms"] == pytest.approx(rms, abs=2e-5)


def test_supervised_tokens_of_whole_rows_are_what_counts(
    inputs: Mapping[str, Path], tmp_path: Path
) -> None:
    divergence.run(inputs, _OPTIONS, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["divergence.json"]
    found = json.loads((tmp_path / "divergence.json").read_text())
    assert list(found) == list(_TYPES)
    renderer = Renderer(inputs["base"], Style())
    logs: list[float] = []
    with open_reader(inputs["BF16"] / "model.gguf", longest=256, threads=1) as reader:
        for row in make_rows(10):
            if len(logs) >= _OPTIONS.tokens:
                break
            rendered = renderer.render(row, on=row.id)
            ids, asked = rendered.input_ids, rendered.completion_mask
            everywhere = np.concatenate(list(reader.read(ids, [True] * len(ids)))).astype(float)
            for place in range(1, len(ids)):
                if asked[place]:
                    before = everywhere[place - 1]
                    logs.append(before[ids[place]] - np.log(np.exp(before).sum()))
    assert found["BF16"]["tokens"] == found["Q4_K_M"]["tokens"] == len(logs)
    assert found["BF16"]["perplexity"] == pytest.approx(np.exp(-np.mean(logs)), rel=1e-6)
    assert found["Q4_K_M"]["kl_divergence"]["mean"] > 0
    low, high = found["Q4_K_M"]["flips_interval"]
    assert low <= found["Q4_K_M"]["flips"] <= high


def test_a_file_is_not_far_from_itself_and_the_bytes_repeat(
    inputs: Mapping[str, Path], tmp_path: Path
) -> None:
    same = {**inputs, "Q8_0": inputs["BF16"]}
    options = replace(_OPTIONS, types=("BF16", "Q8_0"))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        divergence.run(same, options, tmp_path / name)
    one, two = ((tmp_path / name / "divergence.json").read_bytes() for name in ("one", "two"))
    assert one == two
    found = json.loads(one)["Q8_0"]
    assert (found["perplexity_ratio"], found["kl_divergence"]["most"], found["flips"]) == (1, 0, 0)


def test_logits_by_hand() -> None:
    """p = (1/2, 1/4, 1/4) and q = (1/4, 1/2, 1/4): sum p ln(p / q) = ln(2) / 4."""
    p_NV, q_NV = np.log([[0.5, 0.25, 0.25]]) + 3, np.log([[0.25, 0.5, 0.25]]) - 5
    logs, divergences, flips = divergence.compare_tokens(p_NV, q_NV, [2])
    assert logs == pytest.approx(np.log(0.25))
    assert divergences == pytest.approx(np.log(2) / 4)
    assert flips.tolist() == [True]


def test_rows_that_are_all_too_long(inputs: Mapping[str, Path], tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no held-out row can be read"):
        divergence.run(inputs, replace(_OPTIONS, sequence_length=8), tmp_path)
