"""An importance matrix made from rows, and files that are, byte for byte, llama-quantize's with it.

Eight layers give the first eighth the rules of its own; "mistral" has rows of 160, which no large
block divides, and five query heads to a key; "qwen3" has no output head of its own, and few layers,
since the smallest types take ggml a minute for a model of eight.
"""

import filecmp
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.checkpoint import gguf, imatrix, merged
from pipeline.checkpoint.imatrix_file import IMATRIX, Imatrix, read_imatrix
from pipeline.checkpoint.llama_source import import_gguf, read_shapes
from pipeline.checkpoint.text_config import read_config
from pipeline.checkpoint.text_tensors import FAMILIES
from pipeline.data.rendering import Renderer
from pipeline.data.row import Message, Row, write_row
from pipeline.data.style import Style
from pipeline.errors import StageError
from pipeline.gguf_types import CONVERTED, FILE_TYPES, NEED_IMATRIX, Decoder, choose_types
from tests.checkpoint import classic_chain
from tests.checkpoint.planned_size import plan_gguf
from tests.checkpoint.tiny_families import write_adapter, write_family

pytestmark = pytest.mark.convert

NAME = "Tiny 7B"
_OPTIONS = imatrix.Options(
    calibration=30,
    chat_template="",
    sequence_length=2048,
    too_long="drop",
    thinking="text",
    cpu_threads=2,
)
_QUANTIZED = tuple(each for each in FILE_TYPES if each not in CONVERTED)
_LAYERS = {"ministral3": 8, "mistral": 8, "qwen3": 2, "llama": 2, "gemma3_text": 2}
_SLOW = ("IQ3_XS", "IQ2_M", "IQ2_S", "IQ1_M", "IQ1_S")
_CASES = (
    *(("ministral3", each) for each in _QUANTIZED if each not in _SLOW),
    *(("mistral", each) for each in ("Q4_0", "Q2_K_S", "IQ2_XXS")),
    *(("qwen3", each) for each in _SLOW),
    *((family, "Q4_K_M") for family in ("qwen3", "llama", "gemma3_text")),
)


def write_rows(folder: Path, count: int) -> None:
    folder.mkdir()
    rows = [
        Row(
            id=f"{number:08d}",
            messages=(
                Message(role="user", content=f"What is {number * 37} + {number * 91}?"),
                Message(
                    role="assistant",
                    content=str(number * 128),
                    thinking=f"{number * 37} and {number * 91} in columns\n" * 3,
                ),
            ),
        )
        for number in range(count)
    ]
    lines = "".join(write_row(row) + "\n" for row in rows)
    (folder / "train.jsonl").write_text(lines, encoding="utf-8")


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """For each family a directory with base, adapter, rows, imatrix and the merged BF16.gguf."""
    made = {family: tmp_path_factory.mktemp(family) for family in _LAYERS}
    for family, root in made.items():
        layers = _LAYERS[family]
        write_family(root / "base", family, num_hidden_layers=layers, intermediate_size=256)
        write_adapter(root / "adapter", root / "base")
        write_rows(root / "rows", 40)
        (root / "imatrix").mkdir()
        inputs = {each: root / each for each in ("base", "adapter", "rows")}
        imatrix.run(inputs, _OPTIONS, root / "imatrix")
        (root / "model").mkdir()
        merged.run(
            {"text": root / "base", "adapter": root / "adapter"},
            merged.Options(cpu_threads=1),
            root / "model",
        )
        classic_chain.convert(root / "model", root / "BF16.gguf", "BF16", NAME)
    return made


def run_gguf(root: Path, out: Path, file_type: str, *tensor_types: str) -> Path:
    out.mkdir()
    options = gguf.Options(
        type=file_type, model_name=NAME, tensor_types=tensor_types, chat_template=""
    )
    gguf.run({each: root / each for each in ("base", "adapter", "imatrix")}, options, out)
    return out / gguf.GGUF


def quantize(root: Path, path: Path, file_type: str, *tensor_types: str) -> None:
    """As by hand in the directory that holds the matrix: the file keeps its path."""
    classic_chain.quantize(
        root / "BF16.gguf", path, file_type, *tensor_types, imatrix=root / "imatrix" / IMATRIX
    )


@pytest.mark.parametrize(("family", "file_type"), _CASES)
def test_the_streamed_file_is_the_classic_one(
    roots: Mapping[str, Path],
    tmp_path: Path,
    family: str,
    file_type: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gguf, "write_in_steps", None)
    quantize(roots[family], tmp_path / "expected.gguf", file_type)
    found = run_gguf(roots[family], tmp_path / "out", file_type)
    assert filecmp.cmp(tmp_path / "expected.gguf", found, shallow=False)
    planned = plan_gguf(roots[family] / "base", file_type, name=NAME, has_imatrix=True)
    assert (planned.size_bytes, planned.is_exact) == (found.stat().st_size, True)


@pytest.mark.parametrize("file_type", _QUANTIZED)
@pytest.mark.parametrize("family", _LAYERS)
def test_types_are_those_of_the_tool(
    roots: Mapping[str, Path], family: str, file_type: str
) -> None:
    root = roots[family]
    config = read_config(root / "base" / "config.json")
    decoder = Decoder(
        architecture=FAMILIES[family][1],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
    )
    found = choose_types(file_type, read_shapes(root / "BF16.gguf"), decoder, has_imatrix=True)
    told = classic_chain.list_types(root / "BF16.gguf", file_type, root / "imatrix" / IMATRIX)
    assert {name: each for name, each in found.items() if each != "F32"} == told


def test_overridden_types_are_those_of_the_tool(roots: Mapping[str, Path], tmp_path: Path) -> None:
    asked = ("attn_q=IQ2_XS", "ffn_up=F16", r"blk\.0\.attn_k=BF16")
    root = roots["ministral3"]
    quantize(root, tmp_path / "expected.gguf", "Q4_K_M", *asked)
    found = run_gguf(root, tmp_path / "out", "Q4_K_M", *asked)
    assert filecmp.cmp(tmp_path / "expected.gguf", found, shallow=False)


def test_in_steps_the_file_is_the_same(
    roots: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = run_gguf(roots["ministral3"], tmp_path / "streamed", "Q4_K_M")
    monkeypatch.setattr(gguf, "covers", lambda layout: False)
    in_steps = run_gguf(roots["ministral3"], tmp_path / "steps", "Q4_K_M")
    assert filecmp.cmp(streamed, in_steps, shallow=False)


def test_it_changes_the_bytes(roots: Mapping[str, Path], tmp_path: Path) -> None:
    root = roots["ministral3"]
    with_matrix = import_gguf().GGUFReader(run_gguf(root, tmp_path / "with", "Q4_K_M"))
    classic_chain.quantize(root / "BF16.gguf", tmp_path / "without.gguf", "Q4_K_M")
    without = {
        each.name: each for each in import_gguf().GGUFReader(tmp_path / "without.gguf").tensors
    }
    changed = {
        each.name
        for each in with_matrix.tensors
        if not np.array_equal(each.data, without[each.name].data)
    }
    assert changed == set(read_imatrix(root / "imatrix" / IMATRIX).columns)


def test_the_matrix_repeats_and_keeps_no_path(roots: Mapping[str, Path], tmp_path: Path) -> None:
    root = roots["ministral3"]
    inputs = {each: root / each for each in ("base", "adapter", "rows")}
    imatrix.run(inputs, _OPTIONS, tmp_path)
    assert filecmp.cmp(root / "imatrix" / IMATRIX, tmp_path / IMATRIX, shallow=False)
    assert [path.name for path in tmp_path.iterdir()] == [IMATRIX]
    assert str(tmp_path).encode() not in (tmp_path / IMATRIX).read_bytes()
    found = read_imatrix(tmp_path / IMATRIX)
    assert found.dataset == "calibration.txt"
    assert len(found.columns) == 8 * 7


def test_the_text_is_what_training_sees(roots: Mapping[str, Path], tmp_path: Path) -> None:
    root = roots["ministral3"]
    rows = imatrix._read_rows(root / "rows" / "train.jsonl", _OPTIONS.calibration)
    imatrix._write_text(rows, root / "base", _OPTIONS, tmp_path)
    renderer = Renderer(root / "base", Style())
    ids = [each for row in rows for each in renderer.render(row, on="row").input_ids]
    text = (tmp_path / "calibration.txt").read_text()
    assert renderer.tokenizer(text, add_special_tokens=False)["input_ids"] == ids
    # As letters, the control tokens would make far more of them.
    assert read_imatrix(root / "imatrix" / IMATRIX).chunks == len(ids) // imatrix.CHUNK_TOKENS


def test_of_a_long_text_one_piece_is_taken(roots: Mapping[str, Path], tmp_path: Path) -> None:
    words = [f"{number} words\n" * 300 for number in range(2)]
    rows = [Row(id=f"r{number}", text=text) for number, text in enumerate(words)]
    options = replace(_OPTIONS, sequence_length=800)
    imatrix._write_text(rows, roots["ministral3"] / "base", options, tmp_path)
    first, _, second = (tmp_path / "calibration.txt").read_text()[len("<s>") :].partition("<s>")
    assert words[0].startswith(first)
    assert second.endswith("</s>")
    assert words[1][1:].endswith(second.removesuffix("</s>"))


def test_rows_are_spread_over_the_file(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows", 10)
    path = tmp_path / "rows" / "train.jsonl"
    chosen = [int(row.id) for row in imatrix._read_rows(path, 4)]
    assert chosen == [0, 2, 5, 7]
    assert len(imatrix._read_rows(path, 99)) == 10


def test_too_few_rows_are_refused(roots: Mapping[str, Path], tmp_path: Path) -> None:
    inputs = {each: roots["ministral3"] / each for each in ("base", "adapter", "rows")}
    with pytest.raises(StageError, match="too few for an importance matrix"):
        imatrix.run(inputs, replace(_OPTIONS, calibration=2), tmp_path)


@pytest.mark.parametrize("file_type", NEED_IMATRIX)
def test_a_type_that_needs_one_is_refused_without(tmp_path: Path, file_type: str) -> None:
    write_family(tmp_path / "base", "qwen3")
    options = gguf.Options(type=file_type, model_name=NAME, tensor_types=(), chat_template="")
    with pytest.raises(StageError, match="importance matrix"):
        gguf.run({"base": tmp_path / "base"}, options, tmp_path)


def test_the_head_is_not_covered(roots: Mapping[str, Path], tmp_path: Path) -> None:
    """llama-quantize would end in a crash."""
    with pytest.raises(StageError, match="output.weight as IQ2_XS"):
        run_gguf(roots["ministral3"], tmp_path / "out", "Q4_K_M", "output=IQ2_XS")


def write_matrix(path: Path, tensors: Mapping[str, np.ndarray], **keys: Any) -> None:
    writer = import_gguf().GGUFWriter(path, "llama")
    writer.add_array("imatrix.datasets", ["calibration.txt"])
    writer.add_uint32("imatrix.chunk_count", 2)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


_SUMS, _COUNT = np.array([[2.0, 4.0]], np.float32), np.array([[2.0]], np.float32)


def test_a_column_s_importance_is_the_mean_of_its_squares(tmp_path: Path) -> None:
    write_matrix(tmp_path / IMATRIX, {"blk.0.a.in_sum2": _SUMS, "blk.0.a.counts": _COUNT})
    found = read_imatrix(tmp_path / IMATRIX)
    assert found.columns["blk.0.a"].tolist() == [1.0, 2.0]
    assert (found.dataset, found.chunks) == ("calibration.txt", 2)


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({"blk.0.a.in_sum2": _SUMS}, "blk.0.a.*counts is missing"),
        ({"blk.0.a.counts": _COUNT}, "blk.0.a.*in_sum2 is missing"),
        ({"blk.0.a.in_sum2": _SUMS, "blk.0.a.counts": 0 * _COUNT}, "no text has passed"),
        ({"blk.0.a.in_sum2": _SUMS * np.float32("inf"), "blk.0.a.counts": _COUNT}, "infinity"),
        ({"blk.0.a.in_sum2": _SUMS, "blk.0.a.counts": np.ones((2, 1), np.float32)}, "2 counts"),
        ({"blk.0.a.in_sum2": _SUMS.astype(np.float16), "blk.0.a.counts": _COUNT}, "float16"),
    ],
)
def test_a_damaged_matrix_is_refused(
    tmp_path: Path, tensors: Mapping[str, np.ndarray], told: str
) -> None:
    write_matrix(tmp_path / IMATRIX, tensors)
    with pytest.raises(StageError, match=f"(?s){told}"):
        read_imatrix(tmp_path / IMATRIX)


@pytest.mark.parametrize("size", [0, 3, 20, 100])
def test_a_cut_file_is_refused(roots: Mapping[str, Path], tmp_path: Path, size: int) -> None:
    whole = (roots["qwen3"] / "imatrix" / IMATRIX).read_bytes()
    (tmp_path / IMATRIX).write_bytes(whole[:size])
    with pytest.raises(StageError, match="cannot be used"):
        read_imatrix(tmp_path / IMATRIX)


def test_a_matrix_that_does_not_cover_the_model_is_refused(roots: Mapping[str, Path]) -> None:
    root = roots["ministral3"]
    whole = read_imatrix(root / "imatrix" / IMATRIX)
    shapes = read_shapes(root / "BF16.gguf")
    whole.check(shapes)
    name = "blk.3.ffn_down.weight"
    rest = {each: columns for each, columns in whole.columns.items() if each != name}
    cut = {**rest, name: whole.columns[name][:-1]}
    more = {**whole.columns, "blk.9.ffn_down.weight": whole.columns[name]}
    for columns, told in [
        (rest, f"{name}.*it is missing"),
        (cut, f"{name}.*it covers 255 columns, and the weight has 256"),
        (more, "blk.9.ffn_down.weight.*no such weight"),
    ]:
        matrix = Imatrix(path=whole.path, columns=columns, dataset="x", chunks=1)
        with pytest.raises(StageError, match=f"(?s){told}"):
            matrix.check(shapes)
