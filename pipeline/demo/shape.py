"""hidden size -> config.json of the demonstration model. Standard library only: `plan` reads it.

A Mistral 3 vision-language checkpoint in small, field by field of the form that Mistral publishes
for Devstral Small 2: Ministral 3 text model, Pixtral vision tower, FP8 weights with one static
scale per tensor. Every row of a text weight is a multiple of 256 wide, the K-quants' block.
"""

from typing import Any

VOCABULARY_SIZE = 512
HEADS = 4
KV_HEADS = 2
HEAD_DIM = 64
LAYERS = 2
IMAGE_TOKEN_ID = 10
K_QUANT_BLOCK = 256


def make_config(hidden_size: int, vocabulary_size: int = VOCABULARY_SIZE) -> dict[str, Any]:
    """Return config.json of the checkpoint; `hidden_size` is a multiple of 256."""
    assert hidden_size % K_QUANT_BLOCK == 0, "K-quants need rows of whole blocks"
    return {
        "architectures": ["Mistral3ForConditionalGeneration"],
        "dtype": "bfloat16",
        "image_token_index": IMAGE_TOKEN_ID,
        "model_type": "mistral3",
        "multimodal_projector_bias": False,
        "projector_hidden_act": "gelu",
        "quantization_config": _make_quantization(),
        "spatial_merge_size": 2,
        "text_config": _make_text(hidden_size, vocabulary_size),
        "tie_word_embeddings": False,
        "transformers_version": "5.0.0",
        "vision_config": _make_vision(),
        "vision_feature_layer": -1,
    }


def _make_quantization() -> dict[str, Any]:
    return {
        "activation_scheme": "static",
        "dequantize": False,
        "modules_to_not_convert": ["model.vision_tower", "model.multi_modal_projector", "lm_head"],
        "quant_method": "fp8",
        "weight_block_size": None,
    }


def _make_text(hidden_size: int, vocabulary_size: int) -> dict[str, Any]:
    return {
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "hidden_size": hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": hidden_size,
        "max_position_embeddings": 1024,
        "model_type": "ministral3",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KV_HEADS,
        "pad_token_id": 11,
        "rms_norm_eps": 1e-05,
        "rope_parameters": _make_rope(),
        "sliding_window": None,
        "use_cache": True,
        "vocab_size": vocabulary_size,
    }


def _make_rope() -> dict[str, Any]:
    """Return the flagship's fields with lengths to this model's scale."""
    return {
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "factor": 4.0,
        "llama_4_scaling_beta": 0.1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 256,
        "rope_theta": 10000.0,
        "rope_type": "yarn",
        "type": "yarn",
    }


def _make_vision() -> dict[str, Any]:
    return {
        "attention_dropout": 0.0,
        "head_dim": 32,
        "hidden_act": "silu",
        "hidden_size": 64,
        "image_size": 56,
        "initializer_range": 0.02,
        "intermediate_size": 128,
        "model_type": "pixtral",
        "num_attention_heads": 2,
        "num_channels": 3,
        "num_hidden_layers": 2,
        "patch_size": 14,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
    }
