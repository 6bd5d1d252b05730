"""For each family and type the streamed file is, byte for byte, that of llama.cpp's own steps.

merged checkpoint -> converter (F32, F16, BF16), and from BF16 -> llama-quantize. No exceptions.
"""

import filecmp
from pathlib import Path

import pytest

from pipeline.checkpoint import gguf, merged
from pipeline.gguf_types import CONVERTED, FILE_TYPES, NEED_IMATRIX
from tests.checkpoint import classic_chain
from tests.checkpoint.planned_size import plan_gguf
from tests.checkpoint.tiny_families import FAMILIES, write_adapter, write_family

pytestmark = pytest.mark.convert

NAME = "Tiny 7B"
_TENSOR_TYPES = ("attn_v=Q8_0", r"blk\.[01]\.ffn_down=F16", "output=Q5_K")


@pytest.fixture(scope="module", params=FAMILIES)
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with `base`, `adapter`, `model` (merged) and its GGUF in BF16."""
    root = tmp_path_factory.mktemp(request.param)
    write_family(root / "base", request.param)
    write_adapter(root / "adapter", root / "base")
    (root / "model").mkdir()
    inputs = {"text": root / "base", "adapter": root / "adapter"}
    merged.run(inputs, merged.Options(cpu_threads=1), root / "model")
    classic_chain.convert(root / "model", root / "BF16.gguf", "BF16", NAME)
    return root


def stream(root: Path, out: Path, file_type: str, *tensor_types: str) -> Path:
    out.mkdir()
    options = gguf.Options(
        type=file_type, model_name=NAME, tensor_types=tensor_types, chat_template=""
    )
    gguf.run({"base": root / "base", "adapter": root / "adapter"}, options, out)
    return out / gguf.GGUF


@pytest.fixture(autouse=True)
def forbid_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a file that was not streamed would pass for one that was."""
    monkeypatch.setattr(gguf, "write_in_steps", None)


@pytest.mark.parametrize("file_type", [each for each in FILE_TYPES if each not in NEED_IMATRIX])
def test_the_streamed_file_is_the_classic_one(root: Path, tmp_path: Path, file_type: str) -> None:
    expected = tmp_path / "expected.gguf"
    if file_type in CONVERTED:
        classic_chain.convert(root / "model", expected, file_type, NAME)
    else:
        classic_chain.quantize(root / "BF16.gguf", expected, file_type)
    found = stream(root, tmp_path / "out", file_type)
    assert filecmp.cmp(expected, found, shallow=False)
    planned = plan_gguf(root / "base", file_type, name=NAME)
    assert (planned.size_bytes, planned.is_exact) == (found.stat().st_size, True)
    assert sorted(path.name for path in found.parent.iterdir()) == [gguf.CHECKS, gguf.GGUF]


@pytest.mark.parametrize("file_type", ["Q4_K_M", "Q3_K_M"])
def test_overridden_types_are_those_of_the_tool(root: Path, tmp_path: Path, file_type: str) -> None:
    expected = tmp_path / "expected.gguf"
    classic_chain.quantize(root / "BF16.gguf", expected, file_type, *_TENSOR_TYPES)
    found = stream(root, tmp_path / "out", file_type, *_TENSOR_TYPES)
    assert filecmp.cmp(expected, found, shallow=False)
    planned = plan_gguf(root / "base", file_type, name=NAME, tensor_types=_TENSOR_TYPES)
    assert planned.size_bytes == found.stat().st_size


def test_without_an_adapter(root: Path, tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(root / "base")
    classic_chain.convert(tmp_path / "model", tmp_path / "BF16.gguf", "BF16", NAME)
    classic_chain.quantize(tmp_path / "BF16.gguf", tmp_path / "expected.gguf", "Q4_K_M")
    (tmp_path / "out").mkdir()
    options = gguf.Options(type="Q4_K_M", model_name=NAME, tensor_types=(), chat_template="")
    gguf.run({"base": root / "base"}, options, tmp_path / "out")
    assert filecmp.cmp(tmp_path / "expected.gguf", tmp_path / "out" / gguf.GGUF, shallow=False)


def test_more_than_ten_layers_keep_their_order(tmp_path: Path) -> None:
    """By number: the names alone would put layer 10 before layer 2."""
    write_family(tmp_path / "model", "qwen3", num_hidden_layers=11, intermediate_size=256)
    classic_chain.convert(tmp_path / "model", tmp_path / "BF16.gguf", "BF16", NAME)
    classic_chain.quantize(tmp_path / "BF16.gguf", tmp_path / "expected.gguf", "Q4_K_M")
    for file_type, expected in [("BF16", "BF16.gguf"), ("Q4_K_M", "expected.gguf")]:
        (tmp_path / file_type).mkdir()
        options = gguf.Options(type=file_type, model_name=NAME, tensor_types=(), chat_template="")
        gguf.run({"base": tmp_path / "model"}, options, tmp_path / file_type)
        found = tmp_path / file_type / gguf.GGUF
        assert filecmp.cmp(tmp_path / expected, found, shallow=False)
