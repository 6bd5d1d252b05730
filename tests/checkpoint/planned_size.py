"""What a plan says of a GGUF, from the files that it has before anything is built."""

from collections.abc import Sequence
from pathlib import Path

from pipeline.estimate.base_config import read_config
from pipeline.estimate.gguf_size import FileForm, GgufSize, measure_metadata, size_file
from pipeline.estimate.shape import is_listed, parse_shape
from pipeline.gguf_types import parse_override


def plan_gguf(
    base: Path,
    file_type: str,
    *,
    name: str,
    tensor_types: Sequence[str] = (),
    has_imatrix: bool = False,
) -> GgufSize:
    """Return the size of the file that a checkpoint becomes."""
    config = read_config(str(base))
    shape = parse_shape(config.config, on=config.on)
    metadata = measure_metadata(config, shape, name=name, planning=True)
    overrides = [parse_override(each, has_imatrix=has_imatrix) for each in tensor_types]
    form = FileForm(file_type=file_type, overrides=overrides, has_imatrix=has_imatrix)
    return size_file(shape, form, metadata, is_listed=is_listed(config.config))
