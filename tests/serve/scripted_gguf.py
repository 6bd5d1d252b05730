"""A real GGUF, written here byte by byte, whose model says what it is told to.

A llama of one layer that adds nothing: the embedding of a token is a unit vector of its own, and
the output matrix holds, for each token, the one that follows. So llama-server loads and runs a true
model, in milliseconds, and every answer is known. An adapter changes what follows one token.
Standard library only.
"""

import struct
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

_ALIGNMENT = 32
_MARGIN = 4.0
_UNKNOWN, _BOS, _EOS = 0, 1, 2
_SPECIAL = ("<unk>", "<s>", "</s>")
_NORMAL, _UNKNOWN_KIND, _CONTROL, _USER, _BYTE = 1, 2, 3, 4, 6
_HEAD = 32
# (columns, rows; 0 for a vector) and the values.
Tensor: TypeAlias = "tuple[tuple[int, int], array[float]]"
# What a prompt ends with: the answer begins after it.
ASSISTANT = "[/A]"
# Tools and calls are written as Hermes and Qwen write them.
TEMPLATE = (
    "{{ bos_token }}{% if tools %}[system]{{ tools | tojson }}{% endif %}"
    "{% for message in messages %}{{ '[' + message['role'] + ']' }}{{ message['content'] or '' }}"
    "{% for call in message['tool_calls'] or [] %}{{ '<tool_call>\\n' }}"
    "{{ {'name': call['function']['name'], 'arguments': call['function']['arguments']} | tojson }}"
    "{{ '\\n</tool_call>' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}[/A]{% endif %}"
)


@dataclass(kw_only=True)
class Script:
    """What the model says after a prompt's end, by the piece; then it ends, or says it for ever."""

    pieces: Sequence[str]
    endless: bool = False
    name: str = "scripted"
    template: str = TEMPLATE
    context: int = 4096
    after: str = ASSISTANT
    tokens: list[str] = field(init=False)
    kinds: list[int] = field(init=False)

    def __post_init__(self) -> None:
        """Give every byte a token, and every piece one of its own: no two may be equal."""
        assert len(set(self.pieces)) == len(self.pieces)
        self.tokens = [*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), self.after]
        self.kinds = [_UNKNOWN_KIND, _CONTROL, _CONTROL, *[_BYTE] * 256, _USER]
        self.tokens += self.pieces
        self.kinds += [_NORMAL] * len(self.pieces)
        width = -(-len(self.tokens) // 32) * 32
        self.tokens += [f"<unused{n}>" for n in range(width - len(self.tokens))]
        self.kinds += [_CONTROL] * (width - len(self.kinds))

    @property
    def width(self) -> int:
        """The number of tokens, and the size of the model."""
        return len(self.tokens)

    def find(self, piece: str) -> int:
        """Return the token of a piece."""
        return self.tokens.index(piece)

    def list_followers(self) -> dict[int, int]:
        """Return which token follows which; after all others comes the end."""
        first = self.find(self.after)
        chain = [first, *range(first + 1, first + 1 + len(self.pieces))]
        last = first + 1 if self.endless else _EOS
        return dict(zip(chain, [*chain[1:], last], strict=True))


def end_with_assistant(template: str) -> str:
    """Return a family's chat template with the prompt's end that these models know."""
    return template + "{%- if add_generation_prompt %}" + ASSISTANT + "{%- endif %}"


def write_model(path: Path, script: Script) -> Path:
    """Write the model; return its path."""
    width = script.width
    numbers = {
        **{"block_count": 1, "context_length": script.context, "embedding_length": width},
        **{"feed_forward_length": 32, "attention.head_count": width // _HEAD, "vocab_size": width},
        **{"attention.head_count_kv": 1, "rope.dimension_count": _HEAD},
    }
    metadata: dict[str, Any] = {"general.architecture": "llama", "general.name": script.name}
    metadata |= {f"llama.{key}": value for key, value in numbers.items()}
    metadata |= {
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": script.tokens,
        "tokenizer.ggml.scores": [0.0] * width,
        "tokenizer.ggml.token_type": script.kinds,
        "tokenizer.ggml.bos_token_id": _BOS,
        "tokenizer.ggml.eos_token_id": _EOS,
        "tokenizer.ggml.unknown_token_id": _UNKNOWN,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template": script.template,
    }
    _write(path, metadata, _make_tensors(script))
    return path


def _make_tensors(script: Script) -> dict[str, Tensor]:
    """Return each tensor by its name."""
    width = script.width
    followers = script.list_followers()
    output = array("f", bytes(4 * width * width))
    for token in range(width):
        output[followers.get(token, _EOS) * width + token] = _MARGIN
    embeddings = array("f", bytes(4 * width * width))
    for token in range(width):
        embeddings[token * width + token] = 1.0

    def nothing(columns: int, rows: int) -> Tensor:
        return (columns, rows), array("f", bytes(4 * columns * rows))

    ones = ((width, 0), array("f", [1.0] * width))
    return {
        "token_embd.weight": ((width, width), embeddings),
        "output_norm.weight": ones,
        "output.weight": ((width, width), output),
        "blk.0.attn_norm.weight": ones,
        "blk.0.ffn_norm.weight": ones,
        "blk.0.attn_q.weight": nothing(width, width),
        "blk.0.attn_k.weight": nothing(width, _HEAD),
        "blk.0.attn_v.weight": nothing(width, _HEAD),
        "blk.0.attn_output.weight": nothing(width, width),
        "blk.0.ffn_gate.weight": nothing(width, 32),
        "blk.0.ffn_up.weight": nothing(width, 32),
        "blk.0.ffn_down.weight": nothing(32, width),
    }


def write_adapter(path: Path, script: Script, changes: Mapping[str, str]) -> Path:
    """Write an adapter with which other pieces follow: {before: after}; return its path."""
    width, rank = script.width, len(changes)
    a = array("f", bytes(4 * width * rank))
    b = array("f", bytes(4 * width * rank))
    for number, (before, after) in enumerate(changes.items()):
        a[number * width + script.find(before)] = 1.0
        b[script.find(after) * rank + number] = 2 * _MARGIN
    metadata = {
        "general.architecture": "llama",
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": float(rank),
    }
    tensors = {
        "output.weight.lora_a": ((width, rank), a),
        "output.weight.lora_b": ((rank, width), b),
    }
    _write(path, metadata, tensors)
    return path


def _write(
    path: Path,
    metadata: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
) -> None:
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    head += b"".join(_pack_string(key) + _pack_value(value) for key, value in metadata.items())
    offset, data = 0, b""
    for name, ((columns, rows), values) in tensors.items():
        shape = (columns, rows) if rows else (columns,)
        head += _pack_string(name) + struct.pack(
            f"<I{len(shape)}QIQ", len(shape), *shape, 0, offset
        )
        padded = values.tobytes() + bytes(-len(values) * 4 % _ALIGNMENT)
        data, offset = data + padded, offset + len(padded)
    path.write_bytes(head + bytes(-len(head) % _ALIGNMENT) + data)


def _pack_string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _pack_value(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _pack_string(value)
    items = list(value)
    if isinstance(items[0], str):
        return struct.pack("<IIQ", 9, 8, len(items)) + b"".join(map(_pack_string, items))
    number, form = (6, "f") if isinstance(items[0], float) else (5, "i")
    return struct.pack(f"<IIQ{len(items)}{form}", 9, number, len(items), *items)
