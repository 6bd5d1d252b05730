"""Every byte of the lane kernel is ggml's, whatever the weights are."""

import ctypes
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.checkpoint import quantizer
from pipeline.checkpoint.llama_source import import_gguf
from pipeline.checkpoint.quantizer import NEED_WEIGHTS, TYPES, Quantizer, row_bytes
from pipeline.errors import StageError
from pipeline.gguf_types import BLOCKS
from tests.checkpoint.compiled_kernel import compile_kernel

pytestmark = pytest.mark.convert

KERNEL_TYPES = ("Q4_K", "Q5_K", "Q6_K", "Q8_0", "IQ4_XS")
LANES = (8, 16)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_kernel(tmp_path_factory.mktemp("kernel"))


@pytest.fixture(scope="module")
def ggml() -> Quantizer:
    """ggml alone."""
    return Quantizer(None)


@pytest.fixture(scope="module")
def kernels(kernel: Path) -> list[Quantizer]:
    """The kernel in each width that this CPU can run."""
    made = [Quantizer(kernel, most_lanes=lanes) for lanes in LANES]
    found = [each for lanes, each in zip(LANES, made, strict=True) if each.lanes == lanes]
    if not found:
        pytest.skip("this CPU has no AVX2")
    return found


def require_equal(
    ggml: Quantizer,
    kernels: Sequence[Quantizer],
    rows: np.ndarray,
    weights: np.ndarray | None = None,
) -> None:
    for tensor_type in KERNEL_TYPES:
        expected = ggml.quantize_unchecked(tensor_type, rows, weights)
        for each in kernels:
            found = each.quantize_unchecked(tensor_type, rows, weights)
            np.testing.assert_array_equal(found, expected, f"{tensor_type}, {each.lanes} lanes")


# A run of weights: a kind, its magnitude, its length in sub-blocks of 16.
KINDS = ("normal", "positive", "negative", "constant", "zeros", "mixed zeros", "steps", "spiky")
RUNS = st.lists(
    st.tuples(
        st.sampled_from((*KINDS, "all magnitudes", "denormal", "not finite")),
        st.integers(-45, 38),
        st.sampled_from((1, 2, 16, 80)),
    ),
    min_size=1,
    max_size=12,
)


def make_run(kind: str, magnitude: int, count: int, rng: np.random.Generator) -> np.ndarray:
    normal = rng.standard_normal(count)
    size = 10.0**magnitude
    return {
        "normal": normal * size,
        "positive": np.abs(normal) * size + size,
        "negative": -np.abs(normal) * size,
        "constant": np.full(count, normal[0] * size),
        "zeros": np.zeros(count),
        "mixed zeros": np.where(normal < 0, -0.0, 0.0),
        "steps": rng.integers(-8, 9, count) * size,
        "spiky": np.where(rng.random(count) < 0.95, normal * 1e-6, normal * 100),
        "all magnitudes": normal * 10.0 ** rng.uniform(-45, 38, count),
        "denormal": rng.integers(-3, 4, count) * 1.5e-45,
        "not finite": np.where(normal < 2, normal, rng.choice([np.nan, np.inf, -np.inf], count)),
    }[kind]


def make_rows(runs: Sequence[tuple[str, int, int]], columns: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    parts = [make_run(kind, magnitude, 16 * length, rng) for kind, magnitude, length in runs]
    flat = np.concatenate(parts)
    count = -(-flat.size // columns)
    with np.errstate(over="ignore"):
        return np.resize(flat, (count, columns)).astype(np.float32)


class TestTheKernelGivesTheBytesOfGgml:
    @settings(max_examples=150)
    @given(
        runs=RUNS, columns=st.sampled_from((256, 512, 768, 1280)), seed=st.integers(0, 2**32 - 1)
    )
    def test_for_runs_of_every_kind_and_magnitude(
        self,
        ggml: Quantizer,
        kernels: list[Quantizer],
        runs: list[tuple[str, int, int]],
        columns: int,
        seed: int,
    ) -> None:
        require_equal(ggml, kernels, make_rows(runs, columns, seed))

    @settings(max_examples=60)
    @given(bits=arrays(np.uint32, (3, 256)))
    def test_for_any_bits(
        self, ggml: Quantizer, kernels: list[Quantizer], bits: np.ndarray
    ) -> None:
        require_equal(ggml, kernels, bits.view(np.float32))

    @settings(max_examples=80)
    @given(
        runs=RUNS,
        importance=st.tuples(st.sampled_from(KINDS), st.integers(-20, 10)),
        seed=st.integers(0, 2**32 - 1),
    )
    def test_with_an_importance_of_each_column(
        self,
        ggml: Quantizer,
        kernels: list[Quantizer],
        runs: list[tuple[str, int, int]],
        importance: tuple[str, int],
        seed: int,
    ) -> None:
        rows = make_rows(runs, 768, seed)
        weights = make_run(*importance, 768, np.random.default_rng(seed)).astype(np.float32)
        require_equal(ggml, kernels, rows, weights)

    @pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 17])
    @pytest.mark.parametrize("columns", [256, 768, 4096, 14336])
    def test_for_weights_of_a_model(
        self, ggml: Quantizer, kernels: list[Quantizer], count: int, columns: int
    ) -> None:
        rng = np.random.default_rng(columns + count)
        rows = rng.standard_normal((count, columns), np.float32) * np.float32(0.02)
        require_equal(ggml, kernels, rows)
        rows = (rows.view(np.uint32) & 0xFFFF0000).view(np.float32)
        require_equal(ggml, kernels, rows, rng.random(columns, np.float32))

    def test_for_a_million_weights_of_heavy_tails(
        self, ggml: Quantizer, kernels: list[Quantizer]
    ) -> None:
        rows = np.random.default_rng(5).standard_t(1.5, (64, 16384)).astype(np.float32)
        require_equal(ggml, kernels, rows)

    def test_for_single_bad_weights_among_good_ones(
        self, ggml: Quantizer, kernels: list[Quantizer]
    ) -> None:
        rows = np.random.default_rng(6).standard_normal((9, 1024), np.float32)
        rows[1, 3], rows[2, 700], rows[4, 1023], rows[8, 0] = np.nan, np.inf, -np.inf, -np.nan
        rows[5, 8:16], rows[6, :] = 3e38, 1e-40
        require_equal(ggml, kernels, rows)
        weights = np.abs(rows[0])
        weights[::3] = 0
        require_equal(ggml, kernels, rows, weights)
        weights[1] = np.inf
        require_equal(ggml, kernels, rows, weights)

    @pytest.mark.parametrize("columns", [32, 96, 288])
    def test_for_rows_that_are_no_whole_blocks_of_256(
        self, ggml: Quantizer, kernels: list[Quantizer], columns: int
    ) -> None:
        rows = np.random.default_rng(columns).standard_normal((5, columns), np.float32)
        rows[1], rows[2], rows[3] = 0, 1e-40, np.round(rows[3] * 4) / 8
        expected = ggml.quantize("Q8_0", rows)
        for each in kernels:
            np.testing.assert_array_equal(each.quantize("Q8_0", rows), expected)

    def test_from_many_threads_at_once(self, ggml: Quantizer, kernels: list[Quantizer]) -> None:
        rows = np.random.default_rng(7).standard_normal((64, 2048), np.float32)
        slabs = [rows[start : start + 5] for start in range(0, 64, 5)]
        for tensor_type in KERNEL_TYPES:
            expected = ggml.quantize(tensor_type, rows)
            for each in kernels:
                work = (each.quantize, [tensor_type] * len(slabs), slabs)
                with ThreadPoolExecutor(4) as pool:
                    found = np.concatenate(list(pool.map(*work)))
                np.testing.assert_array_equal(found, expected)


class TestTheKernelIsNotUsed:
    def test_where_there_is_none(self) -> None:
        assert Quantizer(None).lanes == 0

    def test_when_its_bytes_differ(self, tmp_path: Path, kernels: list[Quantizer]) -> None:
        fused = Quantizer(compile_kernel(tmp_path, "-mfma", "-ffp-contract=fast"))
        assert fused.lanes == 0
        rows = np.random.default_rng(8).standard_normal((4, 256), np.float32)
        require_equal(Quantizer(None), [fused], rows)

    def test_unless_the_environment_has_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        library = tmp_path / "llama" / "lib"
        library.mkdir(parents=True)
        ggml = Path(sys.prefix) / "llama" / "lib" / "libggml-base.so"
        (library / ggml.name).symlink_to(ggml)
        monkeypatch.setattr(sys, "prefix", str(tmp_path))
        quantizer.load_quantizer.cache_clear()
        assert quantizer.load_quantizer().lanes == 0
        quantizer.load_quantizer.cache_clear()
        compile_kernel(library)
        assert quantizer.load_quantizer().lanes in (0, *LANES)
        quantizer.load_quantizer.cache_clear()


@pytest.mark.parametrize("tensor_type", KERNEL_TYPES)
def test_the_kernel_refuses_what_ggml_alone_refuses(
    tensor_type: str, ggml: Quantizer, kernels: list[Quantizer]
) -> None:
    for bad in (np.nan, np.inf, -3e9):
        rows = np.random.default_rng(11).standard_normal((3, 256), np.float32)
        rows[1] = bad
        for each in (ggml, *kernels):
            with pytest.raises(StageError, match="cannot be quantized"):
                each.quantize(tensor_type, rows)


def test_the_types_are_those_of_ggml() -> None:
    ggml = ctypes.CDLL(str(Path(sys.prefix) / "llama" / "lib" / "libggml-base.so"))
    ggml.ggml_blck_size.restype = ctypes.c_int64
    ggml.ggml_type_size.restype = ctypes.c_size_t
    ggml.ggml_type_name.restype = ctypes.c_char_p
    for name, each in TYPES.items():
        assert ggml.ggml_type_name(each.number).decode().lower() == name.lower()
        found = ggml.ggml_blck_size(each.number), ggml.ggml_type_size(each.number)
        assert found == (each.block_elements, each.block_bytes), name


def test_the_plan_counts_with_the_same_blocks() -> None:
    found = {name: (TYPES[name].block_elements, TYPES[name].block_bytes) for name in BLOCKS}
    assert found == dict(BLOCKS)


@pytest.mark.parametrize("tensor_type", ["F32", "F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_0"])
def test_other_types_are_those_of_the_second_implementation(tensor_type: str) -> None:
    gguf = import_gguf()
    rows = np.random.default_rng(9).standard_normal((7, 96), np.float32)
    expected = gguf.quants.quantize(rows, gguf.GGMLQuantizationType[tensor_type])
    found = quantizer.quantize(tensor_type, rows)
    assert found.dtype == np.uint8 and found.shape == (7, row_bytes(tensor_type, 96))
    np.testing.assert_array_equal(found, expected.view(np.uint8))


# ggml makes tables for the smaller IQ types, for up to half a minute.
@pytest.mark.parametrize("tensor_type", sorted({*TYPES} - NEED_WEIGHTS | {"IQ3_XXS"}))
def test_slabs_of_rows_give_the_bytes_of_the_whole(tensor_type: str) -> None:
    rng = np.random.default_rng(10)
    rows, weights = rng.standard_normal((5, 512), np.float32), rng.random(512, np.float32)
    whole = quantizer.quantize(tensor_type, rows, weights)
    parts = [quantizer.quantize(tensor_type, rows[i : i + 2], weights) for i in (0, 2, 4)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert quantizer.quantize(tensor_type, rows[:0], weights).shape == (0, whole.shape[1])


def test_a_row_that_does_not_divide_into_blocks_is_refused() -> None:
    with pytest.raises(StageError, match="does not divide") as error:
        quantizer.quantize("Q4_K", np.zeros((2, 288), np.float32))
    assert error.value.on == "288 columns as Q4_K"


@pytest.mark.parametrize("tensor_type", sorted(NEED_WEIGHTS))
def test_a_type_that_needs_an_importance_matrix_is_refused_without_one(tensor_type: str) -> None:
    with pytest.raises(StageError, match="importance matrix") as error:
        quantizer.quantize(tensor_type, np.zeros((2, 256), np.float32))
    assert error.value.on == tensor_type


@pytest.mark.parametrize("tensor_type", ["F32", "F16", "BF16", *KERNEL_TYPES])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_finite_numbers_are_refused(tensor_type: str, bad: float) -> None:
    rows = np.ones((3, 256), np.float32)
    rows[1, 77] = bad
    with pytest.raises(StageError, match="cannot be quantized") as error:
        quantizer.quantize(tensor_type, rows)
    assert error.value.on == f"3 rows of 256 as {tensor_type}"
    assert "NaN or an infinity" in error.value.why


@pytest.mark.parametrize("tensor_type", ["F16", "Q8_0", "Q4_K", "Q6_K"])
def test_weights_too_large_for_the_type_are_refused(tensor_type: str) -> None:
    with pytest.raises(StageError, match="cannot be quantized") as error:
        quantizer.quantize(tensor_type, np.full((1, 256), -3e9, np.float32))
    assert error.value.why == f"{tensor_type} cannot hold their size"
