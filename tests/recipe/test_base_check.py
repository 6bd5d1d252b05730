"""What a base's config.json and chat template rule out, told with the recipe's other errors."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.data.templates import BUILT_IN
from pipeline.errors import UsageError
from pipeline.recipe.recipe import Recipe, read_recipe
from pipeline.recipe.user_turn import lacks_user_turn

_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 4,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "max_position_embeddings": 16384,
}
_FP8 = {"quant_method": "fp8", "weight_block_size": None, "activation_scheme": "static"}
_EXPERTS = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe"}


def _read(folder: Path, config: dict[str, Any], more: str = "", template: str = "") -> Recipe:
    base = folder / "base"
    base.mkdir(exist_ok=True)
    (base / "config.json").write_text(json.dumps(_LLAMA | config))
    if template:
        (base / "chat_template.jinja").write_text(template)
    recipe = folder / "mine.toml"
    recipe.write_text(f'[base]\nsource = "base"\n[dataset]\nsource = "demo"\n{more}')
    return read_recipe(recipe)


def _read_error(folder: Path, config: dict[str, Any], more: str = "", template: str = "") -> str:
    with pytest.raises(UsageError) as caught:
        _read(folder, config, more, template)
    assert "the recipe has 1 error" in str(caught.value)
    return caught.value.why


def test_a_base_that_fits_is_taken(tmp_path: Path) -> None:
    recipe = _read(tmp_path, {"quantization_config": _FP8}, '[train]\nmethod = "qlora"\n')
    assert recipe.base.source == str(tmp_path / "base")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
            ["quant_method bitsandbytes", "only FP8"],
        ),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, ["quant_method gptq"]),
        # FP8 of a family whose weights are not dequantized here: a 4-bit load would refuse it.
        (_EXPERTS | {"quantization_config": _FP8}, ["qwen3_moe", "16 or 32 bits alone"]),
    ],
)
def test_a_4_bit_load_needs_weights_that_can_be_dequantized(
    tmp_path: Path, config: dict[str, Any], words: list[str]
) -> None:
    why = _read_error(tmp_path, config, '[train]\nmethod = "qlora"\n')
    assert f'{tmp_path / "mine.toml"}:2: [base] source = "base": ' in why
    assert all(word in why for word in words), why
    assert "refuses a checkpoint that is quantized already" in why
    plain = _read_error(tmp_path, config, '[train]\nmethod = "lora"\n')
    assert all(word in plain for word in words)
    assert "quantized already" not in plain


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("sequence_length = 16385\n", ":5: [dataset] sequence_length = 16385: more tokens than"),
        ("[serve]\ncontext = 20000\n", ":6: [serve] context = 20000: more tokens than"),
        ("[evaluate]\nmax_tokens = 20000\n", ":6: [evaluate] max_tokens = 20000: more tokens"),
    ],
)
def test_no_sequence_is_longer_than_the_models_positions(
    tmp_path: Path, more: str, told: str
) -> None:
    why = _read_error(tmp_path, {}, more)
    assert told in why
    assert "at most 16384, says max_position_embeddings" in why
    longer = {"max_position_embeddings": 20000}
    assert _read(tmp_path, longer, more).name == "mine"


def test_the_limit_of_a_vision_model_is_its_text_models(tmp_path: Path) -> None:
    text = dict(_LLAMA) | {"model_type": "ministral3", "max_position_embeddings": 4096}
    config = {"model_type": "mistral3", "text_config": text}
    why = _read_error(tmp_path, config, "sequence_length = 5000\n[serve]\ncontext = 4096\n")
    assert "at most 4096" in why


def test_a_default_above_the_limit_is_told_as_one(tmp_path: Path) -> None:
    why = _read_error(tmp_path, {"max_position_embeddings": 4096})
    assert ":2: [serve] context = 8192 (the default): more tokens than" in why


def test_blocks_of_256_need_rows_of_whole_blocks(tmp_path: Path) -> None:
    narrow = {"num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 32}
    why = _read_error(tmp_path, narrow, '[gguf]\ntypes = [\n  "Q8_0",\n  "Q4_K_M",\n]\n')
    assert ':8: [gguf] types = ["Q8_0", "Q4_K_M"]: Q4_K_M has blocks of 256 elements' in why
    assert "attn_output (160 elements) would be Q5_0 instead of Q4_K" in why
    all_narrow = {"hidden_size": 2080, "tie_word_embeddings": False}
    why = _read_error(tmp_path, all_narrow)
    asked = re.findall(r'"[\w^]+=\w+"', why)
    assert '"^output=Q8_0"' in asked
    _read(tmp_path, all_narrow, f"[gguf]\ntensor_types = [{', '.join(asked)}]\n")
    # As the message says: a type whose blocks fill the rows, or the other type by name.
    _read(tmp_path, narrow, '[gguf]\ntypes = ["Q8_0"]\n[serve]\ntype = "Q8_0"\n')
    _read(tmp_path, narrow, '[gguf]\ntensor_types = ["attn_output=Q5_0"]\n')


def test_errors_of_the_base_come_with_the_others(tmp_path: Path) -> None:
    more = "sequence_length = 99999\n[train]\nrank = 0\n[serve]\nport = 0\n"
    with pytest.raises(UsageError, match="3 errors"):
        _read(tmp_path, {}, more)


_NO_USER = "{% for message in messages %}{% if message.role == 'assistant' %}{{ message.content }}"


def test_a_template_without_a_user_turn_is_refused(tmp_path: Path) -> None:
    why = _read_error(tmp_path, {}, template=f"{_NO_USER}{{% endif %}}{{% endfor %}}")
    assert "its chat template writes no user's turn" in why


@pytest.mark.parametrize(
    ("template", "lacks"),
    [
        (_NO_USER, True),
        (_NO_USER + "{% else %}[INST]{{ message.content }}", False),
        (_NO_USER + "{% elif message['role'] == \"user\" %}", False),
        (_NO_USER + "{# 'user' #}", True),
        ("{% for m in messages %}{% if m.role != 'assistant' %}{{ m.content }}", False),
        ("{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}", False),
        ("{% for m in messages %}{{ m['content'] }}{% endfor %}", False),
        ("Hello", True),
        ("{{ bos_token }}", True),
        ("{{ raise_exception('no tools today') }}", False),
    ],
)
def test_only_what_is_certain_is_refused(template: str, lacks: bool) -> None:
    assert lacks_user_turn(template) == lacks


def test_no_template_that_is_brought_along_is_refused() -> None:
    sources = list(BUILT_IN.values())
    assert len(sources) > 5
    assert not any(map(lacks_user_turn, sources))
