"""config.json -> the numbers of a dense decoder that all of its sizes follow from.

A model of another family is as large as its files are; for what follows from its size it stands as
a dense decoder of as many parameters.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import UsageError

# config.model_type (of the text model) -> (general.architecture of its GGUF, and the norms of a
# layer by their names there: H as wide as the model, D as wide as a head)
_PLAIN_NORMS = (("attn_norm", "H"), ("ffn_norm", "H"))
_HEAD_NORMS = (("attn_q_norm", "D"), ("attn_k_norm", "D"))
_FAMILIES = {
    "ministral3": ("mistral3", _PLAIN_NORMS),
    "mistral": ("llama", _PLAIN_NORMS),
    "llama": ("llama", _PLAIN_NORMS),
    "qwen3": ("qwen3", (*_PLAIN_NORMS, *_HEAD_NORMS)),
    "gemma3_text": (
        "gemma3",
        (*_PLAIN_NORMS, *_HEAD_NORMS, ("post_attention_norm", "H"), ("post_ffw_norm", "H")),
    ),
}
# What published configs of a family leave to transformers' class defaults.
_DEFAULTS: Mapping[str, Mapping[str, int]] = {
    "gemma3_text": {
        "head_dim": 256,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 262208,
    },
    "qwen3": {"head_dim": 128},
}
# Where the config leaves it open whether the embeddings are tied: transformers' class defaults.
_TIED_BY_DEFAULT = ("gemma3", "gemma3_text")

# What a config of another family may call the numbers that its stand-in takes from it.
_NAMES = {
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers"),
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads"),
    "num_key_value_heads": ("num_key_value_heads",),
    "head_dim": ("head_dim",),
    "vocab_size": ("vocab_size",),
}
# With one of these, the text stage refuses a family that it does not know.
_NOT_PLAIN = ("text_config", "vision_config", "audio_config", "quantization_config")
# Of Gemma 3: the class default; every so many-th layer sees everything (llama.cpp's gemma3.cpp).
_GEMMA_WINDOW, _WINDOW_PATTERN = 4096, 6
_BLOCK = 256  # rows of quantized weights are whole numbers of it


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The numbers of a dense decoder that its sizes follow from.

    `norms` holds the names of a layer's norms and whether each is as wide as the model (H) or as a
    head (D); `frequencies` counts the rotary factors that a GGUF of Llama 3's form adds.
    """

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    architecture: str
    norms: tuple[tuple[str, str], ...]
    frequencies: int
    positions: int = 0
    window: int = 0
    window_pattern: int = 0

    def list_projections(self) -> dict[str, tuple[int, int]]:
        """Return (out, in) features of each projection of a layer."""
        attention, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (attention, self.hidden),
            "k_proj": (kv, self.hidden),
            "v_proj": (kv, self.hidden),
            "o_proj": (self.hidden, attention),
            "gate_proj": (self.ffn, self.hidden),
            "up_proj": (self.ffn, self.hidden),
            "down_proj": (self.hidden, self.ffn),
        }

    def count_projections(self) -> int:
        return self.layers * sum(
            rows * columns for rows, columns in self.list_projections().values()
        )

    def count_parameters(self) -> int:
        """Parameters of the text-only model: projections, norms, embeddings, output."""
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        norms = self.layers * sum(size for _, size in self.list_norms()) + self.hidden
        return self.count_projections() + norms + embeddings

    def list_norms(self) -> list[tuple[str, int]]:
        """Return the name in a GGUF and the size of each norm of a layer."""
        return [(name, self.hidden if of == "H" else self.head_dim) for name, of in self.norms]


def parse_shape(config: Mapping[str, Any], *, on: str) -> Shape:
    """Return the text model's shape; UsageError naming `on` when a field is missing."""
    text = config.get("text_config", config)
    model_type = text.get("model_type", config.get("model_type"))
    try:
        architecture, norms = _FAMILIES[model_type]
        text = {**_DEFAULTS.get(model_type, {}), **text}
        heads = int(text["num_attention_heads"])
        head_dim = int(text.get("head_dim") or text["hidden_size"] // heads)
        return Shape(
            layers=int(text["num_hidden_layers"]),
            hidden=int(text["hidden_size"]),
            ffn=int(text["intermediate_size"]),
            heads=heads,
            kv_heads=int(text.get("num_key_value_heads") or heads),
            head_dim=head_dim,
            vocabulary=int(text["vocab_size"]),
            tied=_is_tied(config, text),
            architecture=architecture,
            norms=norms,
            frequencies=head_dim // 2 if _has_frequencies(text) else 0,
            positions=int(text.get("max_position_embeddings") or 0),
            window=_read_window(text, architecture),
            window_pattern=_WINDOW_PATTERN,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            "the base's config.json is not that of a dense decoder",
            on=on,
            why=f"field {error}",
            then=f"name a checkpoint of one of these families: {', '.join(_FAMILIES)}",
        ) from error


def is_listed(config: Mapping[str, Any]) -> bool:
    """Whether the sizes of a config's family are known exactly."""
    text = config.get("text_config", config)
    known = text if isinstance(text, dict) else {}
    return known.get("model_type", config.get("model_type")) in _FAMILIES


def model_shape(config: Mapping[str, Any], *, base_bytes: int, on: str) -> Shape:
    """Return a dense decoder with about as many parameters as the base's files hold.

    Experts, biases and whatever else the family has count as its feed-forward.
    Raises UsageError when the config has no such numbers, or is more than a plain text model.
    """
    if any(config.get(key) is not None for key in _NOT_PLAIN):
        return parse_shape(config, on=on)  # refused there
    bytes_each = 4 if config.get("dtype", config.get("torch_dtype")) == "float32" else 2
    values = {
        name: next((config[each] for each in names if config.get(each)), None)
        for name, names in _NAMES.items()
    }
    stand_in = {name: value for name, value in values.items() if value is not None} | {
        "model_type": "llama",
        "intermediate_size": _BLOCK,
        "tie_word_embeddings": bool(config.get("tie_word_embeddings")),
    }
    stand_in.setdefault("num_attention_heads", 1)
    smallest = parse_shape(stand_in, on=on)
    left = base_bytes // bytes_each - smallest.count_parameters()
    block_parameters = 3 * _BLOCK * smallest.hidden * smallest.layers
    return replace(smallest, ffn=_BLOCK * (1 + max(left // block_parameters, 0)))


def _is_tied(config: Mapping[str, Any], text: Mapping[str, Any]) -> bool:
    default = text.get("model_type", config.get("model_type")) in _TIED_BY_DEFAULT
    return bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", default)))


def _read_window(text: Mapping[str, Any], architecture: str) -> int:
    """Return what llama.cpp takes for the window: of these families only Gemma 3 has layers with
    one there."""
    if architecture != "gemma3" or text.get("sliding_window_pattern") == 1:
        return 0
    return int(text.get("sliding_window") or _GEMMA_WINDOW)


def _has_frequencies(text: Mapping[str, Any]) -> bool:
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    return rope.get("rope_type", rope.get("type")) == "llama3"
