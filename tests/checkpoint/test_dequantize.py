"""FP8 becomes BF16 by one product in float32, rounded once, whatever the form of the scale.

All of it holds for the kernel and for the tables that take its place.
"""

import math
import re
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.checkpoint.dequantize import Scale, dequantize, look_up, make_scale
from pipeline.checkpoint.fp8_kernel import Fp8Kernel, load_fp8_kernel
from pipeline.errors import StageError
from tests.checkpoint.compiled_kernel import compile_kernel

pytestmark = pytest.mark.convert

Way = Callable[..., torch.Tensor]

DTYPES = (torch.float8_e4m3fn, torch.float8_e5m2)
FORMS = ("0-d", "one", "row vector", "column", "blocks")

# Of BF16 and float32: zero is refused, and denormals are numbers like others.
EXPONENTS = st.integers(-133, 126)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Fp8Kernel:
    kernel = Fp8Kernel(compile_kernel(tmp_path_factory.mktemp("kernel")))
    if not kernel.works:
        pytest.skip("this CPU has no AVX2")
    return kernel


@pytest.fixture(scope="module", params=["kernel", "tables"])
def way(request: pytest.FixtureRequest) -> Way:
    if request.param == "tables":
        return look_up
    kernel: Fp8Kernel = request.getfixturevalue("kernel")

    def run(weight: torch.Tensor, scale: Scale, start: int = 0) -> torch.Tensor:
        return kernel.dequantize(weight, scale.values_PQ, scale.block, start)

    return run


def make_codes(rows: int, columns: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    """Return random codes: every one of the 256, zeros of both signs and NaN among them."""
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(0, 256, (rows, columns), generator=generator, dtype=torch.uint8)
    return codes.view(dtype)


def place(weight: torch.Tensor, offset: int) -> torch.Tensor:
    """Return the weight at an address that divides by nothing, as a shard may hold it."""
    memory = torch.empty(weight.numel() + offset, dtype=torch.uint8)
    found = memory[offset:].view(weight.dtype).view(weight.shape)
    found.copy_(weight)
    return found


def assert_equal_bits(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare every bit, but for those of NaN, which torch itself makes by place."""
    assert found.dtype == expected.dtype == torch.bfloat16
    assert torch.equal(found.isnan(), expected.isnan())
    number = ~expected.isnan()
    assert torch.equal(found[number].view(torch.int16), expected[number].view(torch.int16))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [256, 1])
def test_every_code_equals_the_formula(way: Way, dtype: torch.dtype, columns: int) -> None:
    weight = torch.arange(256, dtype=torch.uint8).reshape(-1, columns).view(dtype)
    for value in (1.0, 0.0013, 2.0**-133, 1e-40, 3e38):
        scale = torch.tensor(value)
        found = way(weight, make_scale(scale, tuple(weight.shape), None, name="w"))
        assert_equal_bits(found, (weight.float() * scale).bfloat16())


def test_a_zero_keeps_its_sign(way: Way) -> None:
    weight = torch.tensor([[0.0, -0.0]]).to(torch.float8_e4m3fn)
    found = way(weight, make_scale(torch.tensor(0.5), (1, 2), None, name="w"))
    assert [math.copysign(1, value) for value in found[0].tolist()] == [1, -1]


def test_it_is_rounded_once(way: Way) -> None:
    # 1.125 * 1.0078125 = 1.1337890625; the BF16 neighbours are 1.1328125 and 1.140625.
    weight = torch.tensor([[1.125]]).to(torch.float8_e4m3fn)
    scale = make_scale(torch.tensor(1.0078125), (1, 1), None, name="w")
    assert way(weight, scale).item() == 1.1328125


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_lies_between_two_numbers_becomes_the_even_one(way: Way, dtype: torch.dtype) -> None:
    """Scales that put products on and beside the middle, in denormals too."""
    codes = torch.arange(256, dtype=torch.uint8).view(dtype)
    for exponent in (0, -60, -126, -132):
        steps = (1 + torch.arange(-1, 514)[:, None] / 2**9) * 2.0**exponent
        weight = codes.expand(len(steps), -1).contiguous()
        found = way(weight, make_scale(steps, tuple(weight.shape), None, name="w"))
        assert_equal_bits(found, (weight.float() * steps).bfloat16())


@given(data=st.data())
def test_it_equals_the_formula(way: Way, data: Any) -> None:
    """Of any shape, type, form of scale and slab."""
    rows, columns = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 300))
    weight = make_codes(
        rows, columns, data.draw(st.integers(0, 99)), data.draw(st.sampled_from(DTYPES))
    )
    form = data.draw(st.sampled_from(FORMS))
    block = data.draw(st.tuples(st.integers(1, 40), st.integers(1, 140)))
    grid = -(-rows // block[0]), -(-columns // block[1])
    shape = {"0-d": (), "one": (1,), "row vector": (rows,), "column": (rows, 1), "blocks": grid}[
        form
    ]
    chance = torch.Generator().manual_seed(rows)
    scale = (torch.rand(shape, generator=chance) + 1) * 2.0 ** data.draw(EXPONENTS)
    scale = scale.to(data.draw(st.sampled_from([torch.float32, torch.bfloat16])))
    made = make_scale(scale, (rows, columns), block if form == "blocks" else None, name="w")
    wide = scale.float().reshape(shape if len(shape) == 2 else (-1, 1))
    if form == "blocks":
        wide = wide.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)[:rows, :columns]
    expected = (weight.float() * wide).bfloat16()
    start = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(start + 1, rows))
    slab = place(weight[start:stop], data.draw(st.integers(0, 17)))
    assert_equal_bits(way(slab, made, start), expected[start:stop])


@pytest.mark.parametrize(
    ("shape", "block"), [((), None), ((70, 1), None), ((2, 32), (64, 128))], ids=str
)
def test_large_weights_go_in_chunks(
    way: Way, shape: tuple[int, ...], block: tuple[int, int] | None
) -> None:
    weight = make_codes(70, 4096, 5, torch.float8_e4m3fn)
    scale = torch.rand(shape, generator=torch.Generator().manual_seed(5)) + 0.1
    wide = scale
    if block:
        wide = scale.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)[:70]
    made = make_scale(scale, (70, 4096), block, name="w")
    assert_equal_bits(way(weight, made), (weight.float() * wide).bfloat16())


def test_from_many_threads_at_once(way: Way) -> None:
    weight = make_codes(200, 384, 7, torch.float8_e4m3fn)
    scale = torch.rand(4, 3, generator=torch.Generator().manual_seed(7)) + 0.1
    made = make_scale(scale, (200, 384), (64, 128), name="w")
    starts = range(0, 200, 7)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda start: way(weight[start : start + 7], made, start), starts))
    assert_equal_bits(torch.cat(found), way(weight, made))


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The libraries of an environment that has none yet."""
    library = tmp_path / "llama" / "lib"
    library.mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    load_fp8_kernel.cache_clear()
    yield library
    load_fp8_kernel.cache_clear()


def require_formula() -> None:
    weight = make_codes(3, 34, 9, torch.float8_e4m3fn)
    scale = torch.tensor([[0.5], [1.1], [3e38]])
    found = dequantize(weight, make_scale(scale, (3, 34), None, name="w"))
    assert_equal_bits(found, (weight.float() * scale).bfloat16())


def test_without_a_kernel_there_are_tables(library: Path) -> None:
    require_formula()
    assert load_fp8_kernel() is None


def test_the_environments_kernel_is_used(kernel: Fp8Kernel, library: Path) -> None:
    compile_kernel(library)
    assert load_fp8_kernel() is not None
    require_formula()


@pytest.mark.parametrize("lanes", [0, 8])
def test_a_kernel_that_cannot_run_or_differs_is_not_used(library: Path, lanes: int) -> None:
    source = library / "other.c"
    source.write_text(
        f"int kquants_lanes(void) {{ return {lanes}; }}\n"
        "void kquants_fp8(const void *job) { (void)job; }\n"
    )
    compile_kernel(library, source=source)
    assert load_fp8_kernel() is None
    require_formula()


@pytest.mark.parametrize(
    ("scale", "block", "words"),
    [
        (torch.ones(2, 2), None, r"its scale \(2, 2\)"),
        (torch.ones(3, 1), None, r"its scale \(3, 1\)"),
        (torch.ones(1, 4), None, r"its scale \(1, 4\)"),
        (torch.ones(4, 1), (2, 2), r"block is \(2, 2\)"),
        (torch.ones(0), None, r"its scale \(0,\)"),
        (torch.tensor(0.0), None, "the scale is 0"),
        (torch.tensor(-1.0), None, "the scale is -1"),
        (torch.tensor(torch.nan), None, "the scale is nan"),
        (torch.tensor([[1.0], [torch.inf], [1.0], [1.0]]), None, "the scale is inf"),
    ],
)
def test_other_scales_are_refused(
    scale: torch.Tensor, block: tuple[int, int] | None, words: str
) -> None:
    with pytest.raises(StageError) as error:
        make_scale(scale, (4, 4), block, name="some.weight_scale")
    assert error.value.on == "some.weight_scale"
    assert re.search(words, error.value.why)
