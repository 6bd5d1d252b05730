"""Tensors -> one safetensors file, the same bytes every time.

What the file system refuses comes out as the OSError that it is: the library hides it in a message
of its own, and a full disk would look like a fault of this project.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

_OS_ERROR = re.compile(r"os error (\d+)")


def write_safetensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write the tensors, which must be contiguous, by their names. Raises OSError."""
    try:
        # One metadata key on purpose: safetensors writes several in random order.
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:
        if (match := _OS_ERROR.search(str(error))) is None:
            raise
        number = int(match[1])
        raise OSError(number, os.strerror(number), str(path)) from error
