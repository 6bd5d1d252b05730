"""Stage: a published checkpoint and a LoRA adapter -> the adapter alone as a GGUF.

In: `base` and `adapter` (PEFT). Out: adapter.gguf, in float32, which llama.cpp adds to a GGUF of
the same base, of any type, and takes away again while it serves. Every pair of factors is in it, or
nothing is written; rows of B stand in the order that the converter gives to the base's weights.

llama.cpp (src/llama-adapter.h) adds B A times alpha / r, in float32, with one alpha for the whole
file. That is s for plain LoRA; rsLoRA's alpha / sqrt(r) needs another alpha, and where modules
differ in s, B takes up what alpha / r leaves.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.checkpoint.gguf_layout import Form, Layout, Source, Uncovered, write_header
from pipeline.checkpoint.llama_source import find_file_type, import_gguf
from pipeline.checkpoint.lora import Adapter
from pipeline.checkpoint.text_tensors import FAMILIES, list_gguf_shapes
from pipeline.checkpoint.weights import TextWeights, open_weights, write_small_files
from pipeline.errors import StageError
from pipeline.log import say, step

ADAPTER_GGUF = "adapter.gguf"

_EMBEDDINGS = "model.embed_tokens.weight"


@dataclass(frozen=True, kw_only=True)
class Options:
    model_name: str
    chat_template: str


@dataclass(frozen=True, kw_only=True)
class Factors:
    """The change of one weight, `name` in the base's GGUF.

    `rows` gives the order of B's rows; None: as they are.
    """

    name: str
    a_name: str
    b_name: str
    rank: int
    scaling: np.float32
    rows: np.ndarray | None


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Write the adapter as a GGUF for files made of `base`.

    Raises StageError for an adapter that is more than pairs of factors.
    """
    weights = open_weights(inputs["base"], inputs["adapter"])
    assert weights.adapter is not None
    _check_pairs(weights.adapter)
    with step("find the weights' places in a GGUF"):
        layout = _make_layout(weights, inputs["base"], options)
    found = _find_factors(layout, weights.adapter)
    alpha = choose_alpha([(each.rank, each.scaling) for each in found])
    with step(f"write {weights.adapter}"):
        _write(found, alpha, weights, options.model_name, out / ADAPTER_GGUF)
    with step("read the GGUF back"):
        _check(out / ADAPTER_GGUF, weights)
    own = sum(find_rest(alpha, each.rank, each.scaling) != 1 for each in found)
    rest = f", {own} modules with a scaling of their own in B" if own else ""
    say(f"{ADAPTER_GGUF}: {2 * len(found)} tensors, alpha {alpha:g}{rest}")


def _check_pairs(adapter: Adapter) -> None:
    """Refuse what a GGUF adapter cannot hold."""
    for name in adapter.saved:
        raise _make_error(
            f"weight {name}",
            "it was trained whole (modules_to_save), and a GGUF adapter holds only factors",
        )
    if _EMBEDDINGS in adapter.pairs:
        raise _make_error(
            f"factors of {_EMBEDDINGS}",
            "llama.cpp adds them where it looks tokens up, and fails where a tied output head"
            " multiplies by the same weight",
        )
    for name, pair in adapter.pairs.items():
        if not 0 < np.float32(pair.scaling) < np.inf:
            raise _make_error(f"scaling of {name}", f"{pair.scaling:g} is none in float32")


def _make_layout(weights: TextWeights, base: Path, options: Options) -> Layout:
    """Return the base's GGUF as the converter lays it out; no weight's data is written."""
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "model"
        small.mkdir()
        write_small_files(base, small, options.chat_template)
        source = Source(weights=weights, directory=small)
        form = Form(type="F32", model_name=options.model_name)
        layout = write_header(source, form, Path(folder) / "header.gguf")
    if isinstance(layout, Uncovered):
        raise _make_error(
            "the order of the weights' rows in a GGUF", f"it cannot be told: {layout.why}"
        )
    return layout


def _find_factors(layout: Layout, adapter: Adapter) -> list[Factors]:
    """Return every pair of the adapter, in the order of the base's GGUF."""
    found = []
    for target in layout.targets:
        if (pair := adapter.pairs.get(target.source)) is not None:
            found.append(
                Factors(
                    name=target.name,
                    a_name=pair.a_name,
                    b_name=pair.b_name,
                    rank=adapter.tensors.entries[pair.a_name].shape[0],
                    scaling=np.float32(pair.scaling),
                    rows=target.rows,
                )
            )
    placed = {each.a_name for each in found}
    for name, pair in adapter.pairs.items():
        if pair.a_name not in placed:
            raise _make_error(f"factors of {name}", "the base's GGUF does not have this weight")
    return found


def choose_alpha(modules: Sequence[tuple[int, np.float32]]) -> np.float32:
    """Return the alpha with which alpha / rank is right for the most modules: (rank, scaling)."""
    counts = Counter(_find_alpha(rank, scaling) for rank, scaling in modules)
    return counts.most_common(1)[0][0]


def _find_alpha(rank: int, scaling: np.float32) -> np.float32:
    """Return the float32 whose quotient by the rank, in float32, is the scaling, or is nearest."""
    near = scaling * np.float32(rank)
    around = (near, np.nextafter(near, np.float32(0)), np.nextafter(near, np.float32(np.inf)))
    return min(around, key=lambda alpha: abs(alpha / np.float32(rank) - scaling))


def find_rest(alpha: np.float32, rank: int, scaling: np.float32) -> np.float32:
    """Return what B is multiplied by, so that alpha / rank times it is the scaling."""
    return np.float32(scaling / (alpha / np.float32(rank)))


def _write(
    found: Sequence[Factors], alpha: np.float32, weights: TextWeights, model_name: str, path: Path
) -> None:
    adapter = weights.adapter
    assert adapter is not None
    gguf = import_gguf()
    with closing(gguf.GGUFWriter(path, FAMILIES[weights.config["model_type"]][1])) as writer:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_name(model_name)
        writer.add_file_type(find_file_type("F32"))
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(alpha))
        for name, shape in _list_shapes(found, adapter):
            writer.add_tensor_info(name, shape, np.dtype(np.float32), 4 * shape[0] * shape[1])
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for each in found:
            for tensor in _read_factors(each, alpha, adapter):
                writer.write_tensor_data(tensor)


def _list_shapes(
    found: Sequence[Factors], adapter: Adapter
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for each in found:
        yield f"{each.name}.lora_a", adapter.tensors.entries[each.a_name].shape
        yield f"{each.name}.lora_b", adapter.tensors.entries[each.b_name].shape


def _read_factors(each: Factors, alpha: np.float32, adapter: Adapter) -> Iterator[np.ndarray]:
    """Yield A and B as they stand in the file; never more than one of them in memory."""
    yield _require_finite(adapter.tensors.read(each.a_name).float().numpy(), each.a_name)
    b_OR = adapter.tensors.read(each.b_name).float().numpy()
    if each.rows is not None:
        b_OR = b_OR[each.rows]
    rest = find_rest(alpha, each.rank, each.scaling)
    # By 1 it would copy a mapped tensor for nothing.
    scaled_OR = b_OR if rest == 1 else b_OR * rest
    yield _require_finite(np.ascontiguousarray(scaled_OR), each.b_name)


def _require_finite(tensor: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(tensor).all():
        raise StageError(
            "the adapter is not sane",
            on=f"tensor {name}",
            why="some of it is not finite: the training diverged, or the file is damaged",
            then="build `adapter` again",
        )
    return tensor


def _check(path: Path, weights: TextWeights) -> None:
    """Refuse a file that is not the whole adapter: llama.cpp leaves out what a file leaves out.

    What is expected comes from the table of names and the adapter's own ranks.
    """
    assert weights.adapter is not None
    reader = import_gguf().GGUFReader(path)
    expected = _list_expected(weights, weights.adapter)
    found = {each.name: tuple(int(n) for n in reversed(each.shape)) for each in reader.tensors}
    for name in sorted({*expected, *found}):
        _check_equal(f"tensor {name}", found.get(name), expected.get(name))
    architecture = FAMILIES[weights.config["model_type"]][1]
    for key, due in (
        ("general.type", "adapter"),
        ("general.architecture", architecture),
        ("adapter.type", "lora"),
    ):
        field = reader.get_field(key)
        _check_equal(key, None if field is None else field.contents(), due)


def _list_expected(weights: TextWeights, adapter: Adapter) -> dict[str, tuple[int, ...]]:
    expected: dict[str, tuple[int, ...]] = {}
    # Both tables are in the same order.
    places = zip(weights.shapes, list_gguf_shapes(weights.config).items(), strict=True)
    for weight, (name, (rows, *columns)) in places:
        if (pair := adapter.pairs.get(weight)) is not None:
            rank = adapter.tensors.entries[pair.a_name].shape[0]
            expected[f"{name}.lora_a"] = (rank, *columns)
            expected[f"{name}.lora_b"] = (rows, rank)
    return expected


def _check_equal(what: str, found: object, due: object) -> None:
    if found != due:
        raise StageError(
            "the GGUF is not the adapter that it was made from",
            on=what,
            why=f"it is {found}, and the adapter asks for {due}",
            then="this is a fault of this stage: report it",
        )


def _make_error(on: str, why: str) -> StageError:
    return StageError(
        "the adapter cannot be a GGUF of its own",
        on=on,
        why=why,
        then="build `gguf`, whose files have the adapter merged in",
    )
