"""A text model's config -> the tensors that it must have: names and shapes, here and in GGUF.

The families are dense, without biases; they differ in their norms. Shapes, by letter: H hidden,
F feed-forward, Q query heads x head size, K key-value heads x head size, D head size, V vocabulary.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.errors import StageError

# config.model_type -> (config.architectures, general.architecture of the GGUF)
FAMILIES = {
    "ministral3": ("Ministral3ForCausalLM", "mistral3"),
    "mistral": ("MistralForCausalLM", "llama"),
    "llama": ("LlamaForCausalLM", "llama"),
    "qwen3": ("Qwen3ForCausalLM", "qwen3"),
    "gemma3_text": ("Gemma3ForCausalLM", "gemma3"),
}

# What published configs of a family leave to its class (transformers 5.23), and what follows it.
DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "gemma3_text": {
        "head_dim": 256,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 262208,
    },
    "qwen3": {"head_dim": 128},
}

_LAYERS_MAX = 1000  # the largest dense models have some 130
_SIZE_MAX = 1 << 24

# (name in a checkpoint, name in a GGUF, shape)
_Rows = tuple[tuple[str, str, str], ...]

_BEFORE: _Rows = (("model.embed_tokens.weight", "token_embd.weight", "VH"),)
_ATTENTION: _Rows = (
    ("model.layers.{n}.input_layernorm.weight", "blk.{n}.attn_norm.weight", "H"),
    ("model.layers.{n}.self_attn.q_proj.weight", "blk.{n}.attn_q.weight", "QH"),
    ("model.layers.{n}.self_attn.k_proj.weight", "blk.{n}.attn_k.weight", "KH"),
    ("model.layers.{n}.self_attn.v_proj.weight", "blk.{n}.attn_v.weight", "KH"),
    ("model.layers.{n}.self_attn.o_proj.weight", "blk.{n}.attn_output.weight", "HQ"),
)
_HEAD_NORMS: _Rows = (
    ("model.layers.{n}.self_attn.q_norm.weight", "blk.{n}.attn_q_norm.weight", "D"),
    ("model.layers.{n}.self_attn.k_norm.weight", "blk.{n}.attn_k_norm.weight", "D"),
)
_NORM: _Rows = (
    ("model.layers.{n}.post_attention_layernorm.weight", "blk.{n}.ffn_norm.weight", "H"),
)
# Gemma 3 has a norm on either side of each half of a layer, and one name means another one.
_GEMMA_NORMS: _Rows = (
    ("model.layers.{n}.post_attention_layernorm.weight", "blk.{n}.post_attention_norm.weight", "H"),
    ("model.layers.{n}.pre_feedforward_layernorm.weight", "blk.{n}.ffn_norm.weight", "H"),
    ("model.layers.{n}.post_feedforward_layernorm.weight", "blk.{n}.post_ffw_norm.weight", "H"),
)
_FEED_FORWARD: _Rows = (
    ("model.layers.{n}.mlp.gate_proj.weight", "blk.{n}.ffn_gate.weight", "FH"),
    ("model.layers.{n}.mlp.up_proj.weight", "blk.{n}.ffn_up.weight", "FH"),
    ("model.layers.{n}.mlp.down_proj.weight", "blk.{n}.ffn_down.weight", "HF"),
)
_AFTER: _Rows = (("model.norm.weight", "output_norm.weight", "H"),)
_HEAD: _Rows = (("lm_head.weight", "output.weight", "VH"),)

_LAYER: Mapping[str, _Rows] = {
    "ministral3": (*_ATTENTION, *_NORM, *_FEED_FORWARD),
    "mistral": (*_ATTENTION, *_NORM, *_FEED_FORWARD),
    "llama": (*_ATTENTION, *_NORM, *_FEED_FORWARD),
    "qwen3": (*_ATTENTION, *_HEAD_NORMS, *_NORM, *_FEED_FORWARD),
    "gemma3_text": (*_ATTENTION, *_HEAD_NORMS, *_GEMMA_NORMS, *_FEED_FORWARD),
}


def list_tensor_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a text-only checkpoint, in the order it is written."""
    return {name: shape for name, _, shape in _list_tensors(config)}


def list_gguf_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of its GGUF, outermost dimension first."""
    return {name: shape for _, name, shape in _list_tensors(config)}


def _list_tensors(config: Mapping[str, Any]) -> list[tuple[str, str, tuple[int, ...]]]:
    sizes = _read_sizes(config)
    layers = (
        (name.format(n=n), gguf_name.format(n=n), letters)
        for n in range(_read_size(config, "num_hidden_layers", _LAYERS_MAX))
        for name, gguf_name, letters in _LAYER[config["model_type"]]
    )
    head = () if config["tie_word_embeddings"] else _HEAD
    return [
        (name, gguf_name, tuple(sizes[letter] for letter in letters))
        for name, gguf_name, letters in (*_BEFORE, *layers, *_AFTER, *head)
    ]


def _read_sizes(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the size that each letter stands for.

    Without head_dim and num_key_value_heads they follow from the other sizes.
    """
    hidden, heads = _read_size(config, "hidden_size"), _read_size(config, "num_attention_heads")
    head_size = hidden // heads
    if config.get("head_dim") is not None:
        head_size = _read_size(config, "head_dim")
    kv_heads = heads
    if config.get("num_key_value_heads") is not None:
        kv_heads = _read_size(config, "num_key_value_heads")
    return {
        "H": hidden,
        "F": _read_size(config, "intermediate_size"),
        "Q": heads * head_size,
        "K": kv_heads * head_size,
        "D": head_size,
        "V": _read_size(config, "vocab_size"),
    }


def _read_size(config: Mapping[str, Any], key: str, largest: int = _SIZE_MAX) -> int:
    size = config.get(key)
    if isinstance(size, int) and not isinstance(size, bool) and 0 < size <= largest:
        return size
    lacks = size is None
    raise StageError(
        f"the model's config {'lacks a' if lacks else 'has an impossible'} size",
        on=f"config.json, {key}",
        why="it is left to a default of some version of transformers, or was removed"
        if lacks
        else f"it is {str(size)[:50]}",
        then="write the value into the base's config.json",
    )
