"""Stage: a merged checkpoint -> one GGUF in BF16, by llama.cpp's own converter.

In: `merged`. Out: model.gguf. The bytes depend on the checkpoint and the name given alone: the
converter would otherwise read the model's name from its directory. Nothing is called a GGUF before
`gguf_check` has read it back.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.checkpoint.gguf_check import check_gguf
from pipeline.checkpoint.llama_source import import_conversion, import_gguf
from pipeline.checkpoint.pre_tokenizer import check_pre_tokenizer, known_splits
from pipeline.checkpoint.shards import read_checkpoint
from pipeline.errors import StageError
from pipeline.log import step

GGUF = "model.gguf"


@dataclass(frozen=True, kw_only=True)
class Options:
    model_name: str


def run(inputs: Mapping[str, Path], options: Options, out: Path) -> None:
    """Write `merged` as a GGUF in BF16 under the options' name."""
    merged = inputs["merged"]
    read_checkpoint(merged)
    check_pre_tokenizer(merged)
    with step("convert to GGUF"):
        _convert(merged, out / GGUF, options.model_name)
    with step("read the GGUF back"):
        check_gguf(out / GGUF, merged, "BF16")


def _convert(checkpoint: Path, path: Path, model_name: str) -> None:
    base = import_conversion().ModelBase
    with tempfile.TemporaryDirectory() as folder, known_splits(checkpoint), torch.inference_mode():
        # Parts of the directory's name would become general.basename, .finetune and .size_label.
        source = Path(folder) / "model"
        source.symlink_to(checkpoint.resolve(), target_is_directory=True)
        hparams = base.load_hparams(source, is_mistral_format=False)
        model_class = _find_class(hparams["architectures"][0])
        file_type = import_gguf().LlamaFileType.MOSTLY_BF16
        model_class(source, file_type, path, model_name=model_name).write()


def _find_class(architecture: str) -> type:
    """Return the converter's class for an architecture of config.json."""
    try:
        found: type = import_conversion().get_model_class(architecture)
    except NotImplementedError:
        raise StageError(
            "llama.cpp does not know this model",
            on=f"config.json, architectures {architecture}",
            why="the pinned converter has no class for it",
            then="use a base whose architecture the pinned llama.cpp supports",
        ) from None
    return found
