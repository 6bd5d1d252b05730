"""The demonstration's base checkpoint: laid out as Mistral publishes, readable by transformers."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import (
    FineGrainedFP8Config,
    Ministral3ForCausalLM,
    Mistral3ForConditionalGeneration,
)

from pipeline.demo.base import Options, require_pieces, run
from pipeline.demo.pretrain import (
    IGNORED,
    Pieces,
    make_batch,
    make_model,
    measure_pieces,
    train,
)
from pipeline.demo.problems import Turn, draw_conversations, make_held_out
from pipeline.demo.published import (
    dequantize,
    is_quantized,
    load_published,
    publish_text,
    quantize,
    write_checkpoint,
)
from pipeline.demo.shape import make_config
from pipeline.demo.tokenizer import make_tokenizer
from pipeline.errors import StageError

pytestmark = pytest.mark.train

OPTIONS = Options(seed=1, digits=2, hidden_size=256, steps=2, held_out=10, cpu_threads=1)


def _make_trained() -> Ministral3ForCausalLM:
    model = make_model(make_config(256)["text_config"], seed=1)
    train(model, make_tokenizer(), draw_conversations(1, 2, ()), steps=2)
    return model


@pytest.fixture(scope="module")
def model() -> Ministral3ForCausalLM:
    torch.set_num_threads(1)
    return _make_trained()


@pytest.fixture(scope="module")
def base(model: Ministral3ForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("base")
    text = publish_text(model)
    load_published(model, text)
    write_checkpoint(text, make_config(256), seed=1, out=out)
    return out


@pytest.fixture(scope="module")
def tensors(base: Path) -> dict[str, Tensor]:
    index = json.loads((base / "model.safetensors.index.json").read_text(encoding="utf-8"))
    found = {}
    for name, file in index["weight_map"].items():
        with safe_open(base / file, framework="pt") as shard:
            found[name] = shard.get_tensor(name)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found.values())
    return found


def test_files_are_those_of_a_published_checkpoint(base: Path) -> None:
    assert sorted(path.name for path in base.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    shards = sorted(base.glob("*.safetensors"))
    sizes = [shard.stat().st_size for shard in shards]
    assert max(sizes) < 2 * min(sizes)


def test_index_names_every_tensor_once(base: Path, tensors: dict[str, Tensor]) -> None:
    stored = []
    for shard in base.glob("*.safetensors"):
        with safe_open(shard, framework="pt") as file:
            stored += list(file.keys())
    assert sorted(stored) == sorted(tensors)


def test_projections_are_fp8_with_scalar_scales(tensors: dict[str, Tensor]) -> None:
    quantized = [name for name in tensors if name.startswith("language") and is_quantized(name)]
    assert len(quantized) == 2 * 7
    for name in quantized:
        module = name.removesuffix(".weight")
        assert name.startswith("language_model.model.layers.")
        assert tensors[name].dtype == torch.float8_e4m3fn
        assert tensors[name].float().abs().max() == 448
        for scale in ("weight_scale_inv", "activation_scale"):
            assert tensors[f"{module}.{scale}"].dtype == torch.bfloat16
            assert tensors[f"{module}.{scale}"].shape == ()


def test_everything_else_is_bf16_under_published_names(tensors: dict[str, Tensor]) -> None:
    others = {name for name, tensor in tensors.items() if tensor.dtype != torch.float8_e4m3fn}
    assert all(tensors[name].dtype == torch.bfloat16 for name in others)
    assert {name.split(".")[0] for name in others} == {
        "language_model",
        "vision_tower",
        "multi_modal_projector",
    }
    assert others >= {
        "language_model.lm_head.weight",
        "language_model.model.embed_tokens.weight",
        "language_model.model.norm.weight",
        "language_model.model.layers.0.input_layernorm.weight",
        "vision_tower.patch_conv.weight",
        "vision_tower.ln_pre.weight",
        "multi_modal_projector.linear_1.weight",
        "multi_modal_projector.patch_merger.merging_layer.weight",
    }


def test_transformers_reads_the_very_weights(base: Path, model: Ministral3ForCausalLM) -> None:
    loaded, report = Mistral3ForConditionalGeneration.from_pretrained(
        base,
        quantization_config=FineGrainedFP8Config(dequantize=True),
        dtype=torch.bfloat16,
        output_loading_info=True,
    )
    assert not any(report.values())
    assert torch.equal(loaded.lm_head.weight.float(), model.lm_head.weight)
    ours = dict(model.model.named_parameters())
    for name, parameter in loaded.model.language_model.named_parameters():
        assert torch.equal(parameter.float(), ours[name]), name


def test_quantized_weight_is_near() -> None:
    """Three bits of mantissa, and steps of 2**-9 scales around zero."""
    weight = torch.randn(64, 256, generator=torch.Generator().manual_seed(0))
    quantized, scale = quantize(weight)
    error = (dequantize(quantized, scale).float() - weight).abs()
    assert bool((error <= weight.abs() * (2**-4 + 2**-8) + scale.float() * 2**-10).all())


def test_only_answers_and_eos_are_labelled() -> None:
    tokenizer = make_tokenizer()
    drill = (
        Turn(
            question="12 + 34",
            answer="1+2+4=07\n0+1+3=04",
            has_random_carries=True,
        ),
        Turn(question="Read", answer="47"),
    )
    input_ids, labels = make_batch(tokenizer, [drill, (Turn(question="12 + 3?", answer="15"),)])
    labelled = [ids[row != IGNORED].tolist() for ids, row in zip(input_ids, labels, strict=True)]
    assert [tokenizer.decode(ids, skip_special_tokens=False) for ids in labelled] == [
        "+2+4=07\n+1+3=04</s>47</s>",
        "15</s>",
    ]
    assert tokenizer.decode(input_ids[0].tolist(), skip_special_tokens=False) == (
        "<s>[INST]12 + 34[/INST]1+2+4=07\n0+1+3=04</s>[INST]Read[/INST]47</s>"
    )
    assert input_ids[1, -1] == 11


def test_pieces_of_an_untrained_model_are_not_enough(model: Ministral3ForCausalLM) -> None:
    pieces = measure_pieces(model, make_tokenizer(), make_held_out(1, 2, 10))
    assert pieces.columns < 0.5
    with pytest.raises(StageError, match="did not learn the pieces"):
        require_pieces(pieces, OPTIONS)
    require_pieces(Pieces(columns=0.995, read=1.0), OPTIONS)


def test_stage_fails_loudly_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="did not learn the pieces"):
        run({}, OPTIONS, tmp_path)
    assert not list(tmp_path.iterdir())


def test_same_bytes_twice(base: Path, tmp_path: Path) -> None:
    write_checkpoint(publish_text(_make_trained()), make_config(256), seed=1, out=tmp_path)
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (base / path.name).read_bytes(), path.name
