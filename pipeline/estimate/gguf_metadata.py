"""config.json + the tokenizer's files -> the bytes of a GGUF's metadata, to the byte.

Which keys there are, and how long their values, is what the pinned llama.cpp's converter writes for
the families of `shape.py` (conversion/base.py, llama.py, mistral3.py, qwen.py, gemma.py and
gguf-py's metadata.py): values themselves matter only where their length does. The converter reads
the config through transformers, whose classes fill in what a config leaves out, so the plain
numbers of a family are always there. Tests hold the sum against real files.

A file begins with 24 bytes (magic, version, two counts); a key takes 8 + its length, its type 4, a
string 8 + its length, an array 12 + its items, a number 4, a truth value 1 (GGUF version 3).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.estimate.shape import Shape

HEAD_BYTES = 24
NUMBER_BYTES = 4
FLAG_BYTES = 1

# generation_config.json -> general.sampling.*; some have two names.
_SAMPLING = {
    "sequence": "sequence",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
    "temperature": "temp",
    "penalty_last_n": "penalty_last_n",
    "penalty_repeat": "penalty_repeat",
    "repetition_penalty": "penalty_repeat",
    "mirostat": "mirostat",
    "mirostat_tau": "mirostat_tau",
    "mirostat_eta": "mirostat_eta",
}

_NUMBERS = (
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.freq_base",
)
_LLAMA_NUMBERS = ("vocab_size", "rope.dimension_count")
_MORE_NUMBERS = {
    "llama": _LLAMA_NUMBERS,
    "mistral3": (
        *_LLAMA_NUMBERS,
        "rope.scaling.yarn_log_multiplier",
        "attention.temperature_scale",
    ),
    "qwen3": (),
    "gemma3": ("attention.sliding_window", "rope.freq_base_swa"),
}
# rope_parameters -> rope.scaling.*, for YaRN; the first that is there of several names.
_YARN = {
    "yarn_ext_factor": ("extrapolation_factor",),
    "yarn_attn_factor": ("attention_factor", "attn_factor"),
    "yarn_beta_fast": ("beta_fast",),
    "yarn_beta_slow": ("beta_slow",),
}


def sum_entries(entries: Mapping[str, int]) -> int:
    """Return the bytes of all keys with their values, of which `entries` gives the bytes by key."""
    return sum(12 + len(key) + value for key, value in entries.items())


def count_string(text: str) -> int:
    """Return the bytes of a string value."""
    return 8 + len(text.encode("utf-8", "surrogatepass"))


def count_strings(texts: Iterable[str]) -> int:
    """Return the bytes of an array of strings."""
    # One pass in C instead of a call per token: a vocabulary has 131,072, its merges twice as many.
    listed = list(texts)
    return 12 + 8 * len(listed) + len("".join(listed).encode("utf-8", "surrogatepass"))


def count_numbers(count: int) -> int:
    """Return the bytes of an array of 32-bit numbers."""
    return 12 + NUMBER_BYTES * count


def list_model_entries(
    config: Mapping[str, Any],
    shape: Shape,
    *,
    name: str,
    parameters: int,
    generation: Mapping[str, Any],
) -> dict[str, int]:
    """Return the bytes of each value that describes the model, by key.

    `config` is the text model's, `name` becomes general.name, `parameters` are those of the file.
    """
    architecture = shape.architecture
    entries = {
        "general.architecture": count_string(architecture),
        "general.type": count_string("model"),
        "general.name": count_string(name),
        "general.size_label": count_string(make_size_label(parameters)),
        "general.quantization_version": NUMBER_BYTES,
        "general.file_type": NUMBER_BYTES,
    }
    for key, written in _SAMPLING.items():
        value = generation.get(key)
        if value is not None:
            size = count_string(value) if isinstance(value, str) else NUMBER_BYTES
            entries[f"general.sampling.{written}"] = size
    for key in (*_NUMBERS, *_MORE_NUMBERS[architecture]):
        entries[f"{architecture}.{key}"] = NUMBER_BYTES
    if config.get("final_logit_softcapping") and architecture == "gemma3":
        entries["gemma3.final_logit_softcapping"] = NUMBER_BYTES
    scaling = _list_scaling(read_rope(config))
    return entries | {f"{architecture}.rope.scaling.{key}": size for key, size in scaling.items()}


def list_imatrix_entries(dataset: str, file: str) -> dict[str, int]:
    """Return the bytes of each value that llama-quantize adds where it has an importance matrix."""
    return {
        "quantize.imatrix.file": count_string(file),
        "quantize.imatrix.dataset": count_string(dataset),
        "quantize.imatrix.entries_count": NUMBER_BYTES,
        "quantize.imatrix.chunks_count": NUMBER_BYTES,
    }


def read_rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the rotary settings of the layers that attend to everything, in either form."""
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    found = rope.get("full_attention", rope)
    return found if isinstance(found, dict) else {}


def _list_scaling(rope: Mapping[str, Any]) -> dict[str, int]:
    kind = rope.get("rope_type", rope.get("type"))
    if kind in ("su", "longrope"):
        return {"type": count_string("longrope")}
    if kind not in ("linear", "yarn") or rope.get("factor") is None:
        return {}
    entries = {"type": count_string(kind), "factor": NUMBER_BYTES}
    if kind == "yarn":
        entries["original_context_length"] = NUMBER_BYTES
        for key, names in _YARN.items():
            if any(rope.get(each) is not None for each in names):
                entries[key] = NUMBER_BYTES
    return entries


def make_size_label(parameters: int) -> str:
    """Return a count of parameters as the converter rounds it, in two digits or more: "24B"."""
    units = ((10**12, "T"), (10**9, "B"), (10**6, "M"))
    unit, letter = next((each for each in units if parameters > each[0]), (10**3, "K"))
    # Its own arithmetic, product and all: where a half is rounded depends on it.
    scaled = parameters * (1 / unit)
    digits = max(2 - len(str(round(scaled)).lstrip("0")), 0)
    return f"{scaled:.{digits}f}{letter}"
