"""Stage: the GGUF in BF16 -> one of a quantization type, by llama.cpp's own quantizer.

In: `gguf` (model.gguf in BF16) and `merged`, the checkpoint that it came from. Out: model.gguf. The
type of each tensor is upstream's choice for the file's type.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.checkpoint.gguf import GGUF
from pipeline.checkpoint.gguf_check import check_gguf
from pipeline.checkpoint.llama_source import run_tool
from pipeline.log import step


@dataclass(frozen=True, kw_only=True)
class Options:
    type: str


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Write `gguf` with its tensors quantized."""
    with step(f"quantize to {options.type}"):
        run_tool("llama-quantize", str(inputs["gguf"] / GGUF), str(out / GGUF), options.type)
    with step("read the GGUF back"):
        check_gguf(out / GGUF, inputs["merged"], options.type)
