"""A text model's config -> the tensors that it must have: names and shapes, here and in GGUF.

The families supported have the same tensors: Ministral3, Mistral and Llama, dense, without biases.
Shapes, by letter: H hidden, F feed-forward, Q query heads x head size, K key-value heads x head
size, V vocabulary.
"""

from collections.abc import Mapping
from typing import Any

from pipeline.errors import StageError

# config.model_type -> (config.architectures, general.architecture of the GGUF)
FAMILIES = {
    "ministral3": ("Ministral3ForCausalLM", "mistral3"),
    "mistral": ("MistralForCausalLM", "llama"),
    "llama": ("LlamaForCausalLM", "llama"),
}

# (name in a checkpoint, name in a GGUF, shape)
_BEFORE = (("model.embed_tokens.weight", "token_embd.weight", "VH"),)
_LAYER = (
    ("model.layers.{n}.input_layernorm.weight", "blk.{n}.attn_norm.weight", "H"),
    ("model.layers.{n}.self_attn.q_proj.weight", "blk.{n}.attn_q.weight", "QH"),
    ("model.layers.{n}.self_attn.k_proj.weight", "blk.{n}.attn_k.weight", "KH"),
    ("model.layers.{n}.self_attn.v_proj.weight", "blk.{n}.attn_v.weight", "KH"),
    ("model.layers.{n}.self_attn.o_proj.weight", "blk.{n}.attn_output.weight", "HQ"),
    ("model.layers.{n}.post_attention_layernorm.weight", "blk.{n}.ffn_norm.weight", "H"),
    ("model.layers.{n}.mlp.gate_proj.weight", "blk.{n}.ffn_gate.weight", "FH"),
    ("model.layers.{n}.mlp.up_proj.weight", "blk.{n}.ffn_up.weight", "FH"),
    ("model.layers.{n}.mlp.down_proj.weight", "blk.{n}.ffn_down.weight", "HF"),
)
_AFTER = (("model.norm.weight", "output_norm.weight", "H"),)
_HEAD = (("lm_head.weight", "output.weight", "VH"),)


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
        for n in range(config["num_hidden_layers"])
        for name, gguf_name, letters in _LAYER
    )
    head = () if config["tie_word_embeddings"] else _HEAD
    return [
        (name, gguf_name, tuple(sizes[letter] for letter in letters))
        for name, gguf_name, letters in (*_BEFORE, *layers, *_AFTER, *head)
    ]


def _read_sizes(config: Mapping[str, Any]) -> dict[str, int]:
    try:
        heads = config["num_attention_heads"]
        head_size = config.get("head_dim") or config["hidden_size"] // heads
        return {
            "H": config["hidden_size"],
            "F": config["intermediate_size"],
            "Q": heads * head_size,
            "K": (config.get("num_key_value_heads") or heads) * head_size,
            "V": config["vocab_size"],
        }
    except KeyError as error:
        raise StageError(
            "the model's config lacks a size",
            on=f"config.json, {error}",
            why="it is left to a default of some version of transformers, or was removed",
            then="write the value into the base's config.json",
        ) from None
