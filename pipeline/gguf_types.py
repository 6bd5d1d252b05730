"""GGUF file type + tensor names and shapes -> the type of each tensor. Standard library only.

The rules are those of the pinned llama.cpp's quantizer for dense models, with or without an
importance matrix (src/llama-quant.cpp: tensor_allows_quantization, llama_tensor_get_type_impl,
tensor_type_fallback), so that a plan knows sizes before the build and a stream need not ask the
tool. Tests hold them against the library's own function and the tool's own files.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import UsageError

# tensor type -> (elements, bytes) of a block: ggml's layouts (ggml-common.h)
BLOCKS: Mapping[str, tuple[int, int]] = {
    "F32": (1, 4),
    "F16": (1, 2),
    "BF16": (1, 2),
    "Q8_0": (32, 34),
    "Q5_1": (32, 24),
    "Q5_0": (32, 22),
    "Q4_1": (32, 20),
    "Q4_0": (32, 18),
    "IQ4_NL": (32, 18),
    "Q6_K": (256, 210),
    "Q5_K": (256, 176),
    "Q4_K": (256, 144),
    "IQ4_XS": (256, 136),
    "Q3_K": (256, 110),
    "IQ3_S": (256, 110),
    "IQ3_XXS": (256, 98),
    "Q2_K": (256, 84),
    "IQ2_S": (256, 82),
    "IQ2_XS": (256, 74),
    "IQ2_XXS": (256, 66),
    "IQ1_M": (256, 56),
    "IQ1_S": (256, 50),
}

# file type -> the type of a tensor that no rule singles out. The first three are written by the
# converter itself, the others by the quantizer from BF16.
FILE_TYPES: Mapping[str, str] = {
    "F32": "F32",
    "F16": "F16",
    "BF16": "BF16",
    "Q8_0": "Q8_0",
    "Q6_K": "Q6_K",
    "Q5_K_M": "Q5_K",
    "Q5_K_S": "Q5_K",
    "Q5_1": "Q5_1",
    "Q5_0": "Q5_0",
    "Q4_K_M": "Q4_K",
    "Q4_K_S": "Q4_K",
    "Q4_1": "Q4_1",
    "Q4_0": "Q4_0",
    "IQ4_NL": "IQ4_NL",
    "IQ4_XS": "IQ4_XS",
    "Q3_K_L": "Q3_K",
    "Q3_K_M": "Q3_K",
    "Q3_K_S": "Q3_K",
    "IQ3_M": "IQ3_S",
    "IQ3_S": "IQ3_S",
    "IQ3_XS": "IQ3_S",
    "IQ3_XXS": "IQ3_XXS",
    "Q2_K": "Q2_K",
    "Q2_K_S": "Q2_K",
    "IQ2_M": "IQ2_S",
    "IQ2_S": "IQ2_XS",
    "IQ2_XS": "IQ2_XS",
    "IQ2_XXS": "IQ2_XXS",
    "IQ1_M": "IQ1_M",
    "IQ1_S": "IQ1_S",
}
CONVERTED = ("F32", "F16", "BF16")

# What quantized files are compared with: what the checkpoint holds.
REFERENCE = "BF16"

# File types and tensor types that are garbage without an importance matrix; llama-quantize refuses
# them, and so does a recipe that asks for none.
NEED_IMATRIX = (
    *("Q2_K_S", "IQ3_XS", "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"),
)

# File types with rules of their own for every projection.
_SMALLEST = ("IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S")
# What these two give to the tensors that matter most; the others of the smallest give Q2_K.
_SMALL_MIXED = ("IQ2_M", "IQ2_S")

# Where a row is no whole number of the type's blocks (tensor_type_fallback).
_NARROWER = {
    **dict.fromkeys(("IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"), "IQ4_NL"),
    "IQ3_S": "IQ4_NL",
    "IQ4_XS": "IQ4_NL",
    "Q2_K": "Q4_0",
    "Q3_K": "Q4_0",
    "Q4_K": "Q5_0",
    "Q5_K": "Q5_1",
    "Q6_K": "Q8_0",
}

_OF_ATTENTION_OUTPUT = {
    "Q2_K": "Q3_K",
    "Q3_K_M": "Q4_K",
    "Q3_K_L": "Q5_K",
    "IQ3_M": "Q4_K",
    "IQ3_XXS": "IQ3_S",
    "IQ2_M": "IQ3_S",
    "IQ2_S": "IQ3_S",
    "IQ1_M": "IQ2_XXS",
    "IQ1_S": "IQ2_XXS",
}

_OVERRIDE = re.compile(r"(?P<pattern>[\w.|()\[\]+*?^$\\{}-]+)=(?P<type>\w+)", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """What the rules ask of a model: general.architecture and three counts."""

    architecture: str
    layers: int
    heads: int
    kv_heads: int


@dataclass(frozen=True, kw_only=True)
class Override:
    """A pattern of tensor names, as a regular expression, and the type that it gets."""

    pattern: str
    type: str


def count_row_bytes(tensor_type: str, columns: int) -> int:
    """Return the bytes of one row of whole blocks."""
    block, block_bytes = BLOCKS[tensor_type]
    assert columns % block == 0, (tensor_type, columns)
    return columns // block * block_bytes


def needs_importance(name: str, tensor_type: str, file_type: str) -> bool:
    """Whether a tensor is garbage without an importance matrix (tensor_requires_imatrix)."""
    if tensor_type == "Q2_K":
        return file_type == "Q2_K_S" and name.startswith("blk.")
    return tensor_type in NEED_IMATRIX


def order_tensors(names: Iterable[str]) -> list[str]:
    """Return the names as the quantizer writes them: outside the layers, then layer by layer."""

    def rank(name: str) -> tuple[int, str]:
        layer = re.match(r"blk\.(\d+)\.", name)
        return (int(layer[1]) if layer else -1, name)

    return sorted(names, key=rank)


def parse_override(text: str, *, has_imatrix: bool = False) -> Override:
    """Return what `pattern=TYPE` says, as llama-quantize's --tensor-type reads it.

    Raises UsageError when it says nothing that can be meant, or needs an importance matrix.
    """
    match = _OVERRIDE.fullmatch(text)
    tensor_type = match["type"].upper() if match else ""
    why = ""
    if match is None:
        why = 'it is not of the form "pattern=TYPE"'
    elif tensor_type in NEED_IMATRIX and not has_imatrix:
        why = f"{tensor_type} needs an importance matrix, and [gguf] calibration asks for none"
    elif tensor_type not in BLOCKS:
        why = f"{tensor_type} is no tensor type (known: {', '.join(BLOCKS)})"
    else:
        try:
            re.compile(match["pattern"].lower())
        except re.error as error:
            why = f"the pattern is no regular expression: {error}"
    if match is None or why:
        raise UsageError(
            "a tensor type cannot be overridden so",
            on=f"[gguf] tensor_types, {text!r}",
            why=why,
            then='write it like "attn_v=Q8_0"',
        )
    return Override(pattern=match["pattern"].lower(), type=tensor_type)


def choose_types(
    file_type: str,
    shapes: Mapping[str, Sequence[int]],
    decoder: Decoder,
    overrides: Sequence[Override] = (),
    *,
    has_imatrix: bool = False,
) -> dict[str, str]:
    """Return the type of each tensor of a file, in the order that the quantizer writes them.

    `shapes` gives rows and columns (or columns alone) of each tensor by its name in a GGUF.
    """
    if file_type in CONVERTED:
        return {
            name: file_type if _is_quantizable(name, shape) else "F32"
            for name, shape in shapes.items()
        }
    rules = _Rules(file_type, shapes, decoder, overrides, has_imatrix=has_imatrix)
    return {name: rules.choose(name, shapes[name]) for name in order_tensors(shapes)}


def _is_quantizable(name: str, shape: Sequence[int]) -> bool:
    return len(shape) > 1 and name.endswith("weight") and not name.endswith("_norm.weight")


class _Rules:
    """The quantizer's choice for one tensor after the other; it counts as it goes."""

    def __init__(
        self,
        file_type: str,
        shapes: Mapping[str, Sequence[int]],
        decoder: Decoder,
        overrides: Sequence[Override],
        *,
        has_imatrix: bool,
    ) -> None:
        self._file_type = file_type
        self._decoder = decoder
        self._overrides = [(re.compile(each.pattern), each.type) for each in overrides]
        self._has_imatrix = has_imatrix
        self._head = "output.weight" if "output.weight" in shapes else "token_embd.weight"
        self._attn_v_total = sum("attn_v.weight" in name for name in shapes)
        # How many of each have been chosen so far.
        self._counts = dict.fromkeys(("attn_v.weight", "ffn_down", "ffn_gate", "ffn_up"), 0)

    def choose(self, name: str, shape: Sequence[int]) -> str:
        """Return the tensor's type; call once for each, in the order of the file."""
        if not _is_quantizable(name, shape):
            return "F32"
        columns = shape[-1]
        asked = next((kind for pattern, kind in self._overrides if pattern.search(name)), None)
        # A tensor that is overridden is not counted either: so does the quantizer.
        return _fit(asked or self._choose_by_rule(name, columns), columns)

    def _choose_by_rule(self, name: str, columns: int) -> str:
        default = FILE_TYPES[self._file_type]
        if name == self._head:
            return self._choose_head(default, columns)
        if name == "token_embd.weight":
            return self._choose_embeddings(default)
        part = next((each for each in self._counts if each in name), name)
        index = self._counts.get(part, 0)
        if part in self._counts:
            self._counts[part] += 1
        match part:
            case "attn_v.weight":
                return self._choose_attn_v(default, index)
            case "ffn_down":
                return self._choose_ffn_down(default, index)
            case "ffn_gate" | "ffn_up" if self._file_type == "IQ3_XS":
                layers = self._decoder.layers
                return "IQ3_XXS" if layers // 8 <= index < 7 * layers // 8 else default
        if "attn_output.weight" in name:
            return _OF_ATTENTION_OUTPUT.get(self._file_type, default)
        if "attn_q.weight" in name or "attn_k.weight" in name:
            return {"IQ3_XS": "IQ3_XXS", "IQ3_XXS": "IQ2_S"}.get(self._file_type, default)
        return default

    def _choose_head(self, default: str, columns: int) -> str:
        if columns % BLOCKS[default][0] or default == "Q8_0":
            return "Q8_0"
        return "Q5_K" if self._file_type in (*_SMALLEST, "IQ3_XXS") else "Q6_K"

    def _choose_embeddings(self, default: str) -> str:
        if self._file_type in (*_SMALL_MIXED, "IQ3_XXS"):
            return "IQ3_S"
        return "Q2_K" if self._file_type in _SMALLEST else default

    def _choose_attn_v(self, default: str, index: int) -> str:
        decoder = self._decoder
        if self._file_type in _SMALLEST:
            return self._choose_grouped(default)
        chosen = default
        match self._file_type:
            case "Q4_K_M" | "Q5_K_M" if _takes_more_bits(index, self._attn_v_total):
                chosen = "Q6_K"
            case "Q4_K_S" if index < 4:
                chosen = "Q5_K"
            case "Q3_K_L":
                chosen = "Q5_K"
            case "Q3_K_M":
                chosen = "Q5_K" if index < 2 else "Q4_K"
            case "IQ3_M":
                chosen = "Q4_K"
            case "Q2_K" | "Q2_K_S" | "IQ3_S" | "IQ3_XS" | "IQ3_XXS" | "IQ4_NL" | "IQ4_XS":
                chosen = self._choose_grouped(default)
        if _is_70b(decoder) and chosen in ("Q3_K", "Q4_K"):
            return "Q5_K"
        return chosen

    def _choose_grouped(self, default: str) -> str:
        """Small value heads shared by four or more query heads are worth their bits."""
        if self._decoder.heads // self._decoder.kv_heads >= 4:
            return "Q5_K" if self._file_type in ("IQ4_NL", "IQ4_XS") else "Q4_K"
        if self._file_type in _SMALLEST:
            return "IQ3_S" if self._file_type in _SMALL_MIXED else "Q2_K"
        if self._file_type == "IQ3_XXS" and not self._has_imatrix:
            return "IQ3_S"
        return {"Q2_K": "Q3_K"}.get(self._file_type, default)

    def _choose_ffn_down(self, default: str, index: int) -> str:
        layers = self._decoder.layers
        is_early = index < layers // 8
        match self._file_type:
            case "Q4_K_M" | "Q5_K_M" if _takes_more_bits(index, layers):
                return "Q6_K"
            case "Q4_K_S" if is_early:
                return "Q5_K"
            case "IQ4_NL" | "IQ4_XS" if is_early and not self._has_imatrix:
                return "Q5_K"
            case "Q4_0" | "Q5_0" if is_early and self._has_imatrix:
                return {"Q4_0": "Q4_1", "Q5_0": "Q5_1"}[self._file_type]
            case "Q3_K_L":
                return "Q5_K"
            case "Q3_K_M":
                return "Q5_K" if index < layers // 16 else "Q4_K"
            case "IQ3_M" | "Q2_K_S" if is_early:
                return "Q4_K"
            case "IQ3_XXS" if not self._has_imatrix:
                return "Q4_K" if is_early else "Q3_K"
            case "Q2_K":
                return "Q3_K"
            case small if small in _SMALLEST and is_early:
                return "IQ3_S" if small in _SMALL_MIXED else "Q2_K"
        return default


def _takes_more_bits(index: int, total: int) -> bool:
    eighth = total // 8
    # In C, a negative remainder keeps its sign; the first test has then answered already.
    return index < eighth or index >= 7 * total // 8 or (index - eighth) % 3 == 2


def _is_70b(decoder: Decoder) -> bool:
    grouped = decoder.heads != decoder.kv_heads
    return decoder.layers == 80 and decoder.architecture == "llama" and grouped


def _fit(tensor_type: str, columns: int) -> str:
    """Return the type, or the nearest one whose blocks fill the rows."""
    if columns % BLOCKS[tensor_type][0] == 0:
        return tensor_type
    narrower = _NARROWER.get(tensor_type, tensor_type)
    return narrower if columns % BLOCKS[narrower][0] == 0 else "F16"
