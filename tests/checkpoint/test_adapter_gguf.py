"""The adapter beside a base's GGUF answers as the merged file does, whatever its scalings.

Weights and factors are multiples of 2^-10 so small that W + s B A is one in BF16 too: the two files
then differ in the order of float32 sums alone.
"""

import json
import math
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.checkpoint import adapter_gguf, gguf
from pipeline.checkpoint.adapter_gguf import ADAPTER_GGUF, choose_alpha, find_rest
from pipeline.checkpoint.gguf_layout import Uncovered
from pipeline.checkpoint.llama_source import import_gguf
from pipeline.checkpoint.lora_config import read_lora_config
from pipeline.errors import StageError
from tests.checkpoint.tiny_families import LAYERS, SINGLE, write_adapter, write_family

pytestmark = pytest.mark.convert

NAME = "Tiny 7B"
IDS = [1, 3, *range(40, 90), 4, 77, 300, 12, 2]
_PREFIX = "base_model.model."
_STEP = 2.0**-10
_LARGEST = 100  # of a weight, in steps; BF16 holds 256, and the rest is for the change

# What a config has besides alpha / r for all: the ranks are squares, so that rsLoRA is exact too.
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"r": 8, "lora_alpha": 16},
    "rslora": {"r": 16, "lora_alpha": 8, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"k_proj": 16, r"layers\.1\.mlp\.up_proj": 1},
        "alpha_pattern": {"v_proj": 1, "k_proj": 16},
    },
    "rslora-patterns": {
        "r": 4,
        "lora_alpha": 8,
        "use_rslora": True,
        "rank_pattern": {"q_proj|down_proj": 16},
    },
}


def write_checkpoint(folder: Path, family: str) -> None:
    write_family(folder, family)
    tensors = load_file(folder / SINGLE)
    for name, tensor in tensors.items():
        if "_proj." in name:
            steps = (tensor.float() / _STEP).round().clamp(-_LARGEST, _LARGEST)
            tensors[name] = (steps * _STEP).bfloat16()
    save_file(tensors, folder / SINGLE)


def write_exact_adapter(folder: Path, base: Path, config: dict[str, Any]) -> None:
    """Write factors for every projection; A holds -1, 0 and 1, s B small multiples of a step."""
    write_adapter(folder, base)
    known = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(known | config))
    read = read_lora_config(folder)
    generator = torch.Generator().manual_seed(5)
    tensors = {}
    for name, tensor in sorted(load_file(folder / "adapter_model.safetensors").items()):
        module = name.removeprefix(_PREFIX).partition(".lora_")[0]
        rank = int(read.find_rank(module))
        scaling = read.find_scaling(module)
        largest = math.floor(150 / rank / max(scaling, 1))
        if "lora_A" in name:
            drawn = torch.randint(-1, 2, (rank, tensor.shape[1]), generator=generator).float()
        else:
            shape = (tensor.shape[0], rank)
            drawn = torch.randint(-largest, largest + 1, shape, generator=generator)
            drawn = drawn * _STEP / min(scaling, 1)
        tensors[name] = drawn
    save_file(tensors, folder / "adapter_model.safetensors")


def write_gguf(out: Path, **inputs: Path) -> Path:
    out.mkdir()
    gguf.run(
        inputs, gguf.Options(type="F32", model_name=NAME, tensor_types=(), chat_template=""), out
    )
    return out / gguf.GGUF


def write_adapter_gguf(out: Path, **inputs: Path) -> Path:
    out.mkdir()
    adapter_gguf.run(inputs, adapter_gguf.Options(model_name=NAME, chat_template=""), out)
    return out / ADAPTER_GGUF


def ask(path: Path, adapter: Path | None = None, scale: float = 1.0) -> np.ndarray:
    """Return the logits; keys and values are cached in float32, else they would be rounded."""
    llama = llama_cpp.Llama(
        str(path),
        lora_path=None if adapter is None else str(adapter),
        lora_scale=scale,
        n_ctx=128,
        n_batch=128,
        logits_all=True,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        verbose=False,
    )
    llama.eval(IDS)
    scores = np.array(llama.scores[: len(IDS)], dtype=np.float64)
    llama.close()
    return scores


def find_distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.square(found - expected).sum() / np.square(expected).sum())


@pytest.mark.parametrize(
    ("family", "config"),
    [
        ("ministral3", "plain"),
        ("ministral3", "rslora-patterns"),
        ("llama", "rslora"),
        ("qwen3", "patterns"),
        ("mistral", "patterns"),
        ("gemma3_text", "rslora"),
    ],
)
def test_it_answers_as_the_merged_file(tmp_path: Path, family: str, config: str) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    write_checkpoint(base, family)
    write_exact_adapter(adapter, base, CONFIGS[config])
    plain = write_gguf(tmp_path / "plain", base=base)
    merged = ask(write_gguf(tmp_path / "merged", base=base, adapter=adapter))
    beside = write_adapter_gguf(tmp_path / "beside", base=base, adapter=adapter)
    assert find_distance(ask(plain, beside), merged) < 1e-7
    alone = ask(plain)
    assert find_distance(merged, alone) > 0.1
    assert np.array_equal(ask(plain, beside, scale=0.0), alone)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a checkpoint, `base`, and an adapter with patterns, `adapter`."""
    root: Path = tmp_path_factory.mktemp("adapter_gguf")
    write_checkpoint(root / "base", "ministral3")
    write_exact_adapter(root / "adapter", root / "base", CONFIGS["patterns"])
    return root


def test_what_is_in_the_file(root: Path, tmp_path: Path) -> None:
    first, again = (
        write_adapter_gguf(tmp_path / each, base=root / "base", adapter=root / "adapter")
        for each in ("first", "again")
    )
    assert first.read_bytes() == again.read_bytes()
    assert [path.name for path in first.parent.iterdir()] == [ADAPTER_GGUF]
    reader = import_gguf().GGUFReader(first)
    values = {name: each.contents() for name, each in reader.fields.items()}
    assert {name: each for name, each in values.items() if not name.startswith("GGUF.")} == {
        "general.architecture": "mistral3",
        "general.type": "adapter",
        "general.name": NAME,
        "general.file_type": 0,
        "adapter.type": "lora",
        "adapter.lora.alpha": 8.0,
    }
    tensors = {each.name: each.data for each in reader.tensors}
    assert len(tensors) == 2 * 7 * LAYERS
    written = load_file(root / "adapter/adapter_model.safetensors")
    module = f"{_PREFIX}model.layers.2.self_attn"
    for name, scaling in (("v", 1 / 8), ("o", 1.0)):
        theirs = written[f"{module}.{name}_proj.lora_B.weight"].numpy()
        ours = tensors[f"blk.2.attn_{'output' if name == 'o' else name}.weight.lora_b"]
        assert np.array_equal(ours, theirs * scaling)
    theirs = written[f"{module}.q_proj.lora_B.weight"].numpy()
    # Each head's second half comes between the rows of the first.
    due = theirs.reshape(4, 2, 32, 4).swapaxes(1, 2).reshape(theirs.shape)
    assert np.array_equal(tensors["blk.2.attn_q.weight.lora_b"], due)


@pytest.mark.parametrize("rank", [1, 3, 8, 12, 16, 24, 37, 64, 100, 256])
def test_alpha_over_rank_is_the_scaling(rank: int) -> None:
    for alpha in (1, 2, 7.3, 16, 32, 1e-3, 1e5):
        for scaling in (np.float32(alpha / rank), np.float32(alpha / math.sqrt(rank))):
            chosen = choose_alpha([(rank, scaling)])
            found = chosen / np.float32(rank) * find_rest(chosen, rank, scaling)
            assert abs(found - scaling) <= np.spacing(scaling)


def test_most_modules_keep_their_factors() -> None:
    modules = [(8, np.float32(2)), (8, np.float32(2)), (16, np.float32(2)), (16, np.float32(1))]
    chosen = choose_alpha(modules)
    assert chosen == 16
    assert [find_rest(chosen, *each) for each in modules] == [1, 1, 2, 1]


def test_a_weight_that_was_trained_whole_is_refused(root: Path, tmp_path: Path) -> None:
    adapter = copy_adapter(root, tmp_path, modules_to_save=["lm_head"])
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors[f"{_PREFIX}lm_head.weight"] = load_file(root / "base" / SINGLE)["lm_head.weight"]
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(StageError, match="cannot be a GGUF of its own") as error:
        write_adapter_gguf(tmp_path / "out", base=root / "base", adapter=adapter)
    assert error.value.on == "weight lm_head.weight"
    assert "merged in" in error.value.then
    assert not list((tmp_path / "out").iterdir())


def test_factors_of_the_embeddings_are_refused(root: Path, tmp_path: Path) -> None:
    adapter = copy_adapter(root, tmp_path)
    tensors = load_file(adapter / "adapter_model.safetensors")
    module = f"{_PREFIX}model.embed_tokens"
    tensors[f"{module}.lora_A.weight"] = torch.ones(4, 256)
    tensors[f"{module}.lora_B.weight"] = torch.ones(512, 4)
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(StageError, match="cannot be a GGUF of its own") as error:
        write_adapter_gguf(tmp_path / "out", base=root / "base", adapter=adapter)
    assert error.value.on == "factors of model.embed_tokens.weight"


def test_factors_that_are_not_finite_are_refused(root: Path, tmp_path: Path) -> None:
    adapter = copy_adapter(root, tmp_path)
    tensors = load_file(adapter / "adapter_model.safetensors")
    name = f"{_PREFIX}model.layers.3.mlp.up_proj.lora_A.weight"
    tensors[name][0, 0] = math.nan
    save_file(tensors, adapter / "adapter_model.safetensors")
    with pytest.raises(StageError, match="not sane") as error:
        write_adapter_gguf(tmp_path / "out", base=root / "base", adapter=adapter)
    assert error.value.on == f"tensor {name}"


def test_a_file_that_lacks_a_tensor_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_all = adapter_gguf._find_factors
    monkeypatch.setattr(adapter_gguf, "_find_factors", lambda *given: find_all(*given)[1:])
    with pytest.raises(StageError, match="not the adapter that it was made from") as error:
        write_adapter_gguf(tmp_path / "out", base=root / "base", adapter=root / "adapter")
    assert error.value.on.startswith("tensor blk.0.")


def test_a_base_whose_rows_are_not_only_reordered_is_refused(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncovered = Uncovered(why="blk.0 is summed")
    monkeypatch.setattr(adapter_gguf, "write_header", lambda *given: uncovered)
    with pytest.raises(StageError, match="cannot be a GGUF of its own") as error:
        write_adapter_gguf(tmp_path / "out", base=root / "base", adapter=root / "adapter")
    assert error.value.why.endswith("blk.0 is summed")


def copy_adapter(root: Path, tmp_path: Path, **config: Any) -> Path:
    adapter = tmp_path / "adapter"
    write_exact_adapter(adapter, root / "base", CONFIGS["patterns"] | config)
    return adapter
