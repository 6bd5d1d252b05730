"""config.json -> the numbers of a dense decoder that all of its sizes follow from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The numbers of a dense decoder that its sizes follow from."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool

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
        norms = (2 * self.layers + 1) * self.hidden
        return self.count_projections() + norms + embeddings


def parse_shape(config: Mapping[str, Any], *, on: str) -> Shape:
    """Return the text model's shape; UsageError naming `on` when a field is missing."""
    text = config.get("text_config", config)
    try:
        heads = int(text["num_attention_heads"])
        return Shape(
            layers=int(text["num_hidden_layers"]),
            hidden=int(text["hidden_size"]),
            ffn=int(text["intermediate_size"]),
            heads=heads,
            kv_heads=int(text.get("num_key_value_heads") or heads),
            head_dim=int(text.get("head_dim") or text["hidden_size"] // heads),
            vocabulary=int(text["vocab_size"]),
            tied=bool(config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            "the base's config.json is not that of a dense decoder",
            on=on,
            why=f"field {error}",
            then="name a Mistral 3, Ministral 3, Mistral or Llama checkpoint",
        ) from error
