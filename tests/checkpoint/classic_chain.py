"""llama.cpp's own two steps, as they are run by hand: what the stream is held against."""

import re
import subprocess
import sys
from pathlib import Path

import torch

from pipeline.checkpoint.llama_source import (
    find_file_type,
    import_conversion,
    import_gguf,
    run_tool,
)
from pipeline.checkpoint.pre_tokenizer import known_splits
from pipeline.checkpoint.text_config import read_config


def convert(checkpoint: Path, path: Path, file_type: str, name: str) -> None:
    """Write the checkpoint, in a directory called `model`, as a GGUF of a 16- or 32-bit type."""
    assert checkpoint.name == "model"
    (architecture,) = read_config(checkpoint / "config.json")["architectures"]
    model_class = import_conversion().get_model_class(architecture)
    number = import_gguf().LlamaFileType(find_file_type(file_type))
    with known_splits(checkpoint), torch.inference_mode():
        model_class(checkpoint, number, path, model_name=name).write()


def quantize(
    converted: Path, path: Path, file_type: str, *tensor_types: str, imatrix: Path | None = None
) -> None:
    """Write a GGUF in BF16 as one of a quantized type; an importance matrix by its bare name."""
    options = [word for each in tensor_types for word in ("--tensor-type", each)]
    if imatrix is not None:
        options += ["--imatrix", imatrix.name]
    directory = imatrix.parent if imatrix is not None else None
    run_tool("llama-quantize", *options, str(converted), str(path), file_type, directory=directory)


def list_types(converted: Path, file_type: str, imatrix: Path) -> dict[str, str]:
    """Return the type that llama-quantize would give to each tensor that it quantizes."""
    tool = Path(sys.prefix) / "llama" / "bin" / "llama-quantize"
    command = [str(tool), "--dry-run", "--imatrix", str(imatrix), str(converted), file_type]
    done = subprocess.run(
        command, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    lines = re.findall(r"^\[ *\d+/ *\d+\] +(\S+) .* -> .*\((\w+)\)$", done.stdout, re.MULTILINE)
    return {name: each.upper() for name, each in lines}
