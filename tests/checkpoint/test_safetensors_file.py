"""A safetensors file is the same bytes every time, and a full disk is told as one."""

import errno
import resource
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.checkpoint.safetensors_file import write_safetensors

pytestmark = pytest.mark.convert


def test_the_same_tensors_give_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(4.0), "a": torch.tensor(1.5, dtype=torch.bfloat16)}
    for name in ("one", "two"):
        write_safetensors(tensors, tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert torch.equal(load_file(tmp_path / "one")["b"], tensors["b"])


def test_what_the_file_system_refuses_is_an_os_error(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="too large") as caught:
            write_safetensors({"a": torch.zeros(4096)}, tmp_path / "file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.errno == errno.EFBIG
    assert caught.value.filename == str(tmp_path / "file")
