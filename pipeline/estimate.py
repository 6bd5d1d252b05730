"""config.json + recipe -> sizes before anything is built. Standard library only, no weights.

Parameters and tensor data are exact for dense decoders of the families that are known, and models
for others, as GGUF metadata and VRAM always are, each with its formula here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact.key import REPOSITORY
from pipeline.data.source import HUB
from pipeline.decoder_shape import Shape, is_listed, model_shape, parse_shape
from pipeline.demo.shape import make_config
from pipeline.errors import UsageError
from pipeline.gguf_size import sum_file_bytes
from pipeline.gguf_types import parse_override
from pipeline.recipe.dataset import DEMO
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.row_sources import list_row_paths

# A token of 1 to 4 characters becomes an id of 4 bytes and a mark of 1; digits set the factor.
_DATASET_BYTES_PER_ROW_BYTE = 4

# Text in columns is compressed to about a third.
_TEXT_BYTES_PER_PARQUET_BYTE = 3

# Each row's line and its places in the indexes; and, for near duplicates, two signatures. Rows of
# half a kilobyte took 1.5 and 4.7.
_SCRATCH_PER_ROW_BYTE = 1.5
_SIGNATURES_PER_ROW_BYTE = 3.5

# A page of 400 rows, each token with its number: 0.3 to 5 MB, by the length of the rows.
_REPORT_BYTES = 1_000_000

# Vision tower, projector, scales and tokenizer of the demonstration's base.
_DEMO_REST_BYTES = 500_000


@dataclass(frozen=True, kw_only=True)
class Estimate:
    base_parameters: int
    trainable_parameters: int
    base_bytes: int
    text_bytes: int
    rows_bytes: int
    # The scratch file that rows wait in.
    rows_scratch_bytes: int
    dataset_bytes: int
    report_bytes: int
    gguf_bytes: Mapping[str, int]
    # Mostly the Q8_0 file that is measured, and gone afterwards.
    imatrix_bytes: int
    train_vram_bytes: int
    serve_vram_bytes: int


def estimate(recipe: Recipe) -> Estimate:
    """Return the sizes of the recipe's artifacts; UsageError when config.json is not understood."""
    shape = _find_shape(recipe)
    parameters = shape.count_parameters()
    projections = shape.list_projections()
    trainable = shape.layers * sum(
        recipe.train.rank * sum(projections[name]) for name in recipe.train.target_modules
    )
    rows_bytes = _sum_rows_bytes(recipe)
    has_imatrix = recipe.gguf.calibration > 0
    overrides = [parse_override(each, has_imatrix=has_imatrix) for each in recipe.gguf.tensor_types]
    gguf_bytes = {
        each: sum_file_bytes(shape, each, overrides, has_imatrix=has_imatrix)
        for each in recipe.gguf.types
    }
    return Estimate(
        base_parameters=parameters,
        trainable_parameters=trainable,
        base_bytes=_sum_base_bytes(recipe) or _model_base_bytes(recipe, shape),
        text_bytes=2 * parameters,
        rows_bytes=rows_bytes,
        rows_scratch_bytes=_estimate_scratch(recipe, rows_bytes),
        dataset_bytes=_DATASET_BYTES_PER_ROW_BYTE * rows_bytes,
        report_bytes=_REPORT_BYTES,
        gguf_bytes=gguf_bytes,
        imatrix_bytes=sum_file_bytes(shape, "Q8_0"),
        train_vram_bytes=_model_train_vram(recipe, shape, trainable),
        serve_vram_bytes=gguf_bytes[recipe.serve.type]
        + 4
        * shape.layers
        * shape.kv_heads
        * shape.head_dim
        * recipe.serve.context
        * recipe.serve.parallel,
    )


def _find_shape(recipe: Recipe) -> Shape:
    config, on = _read_config(recipe), recipe.base.source
    if is_listed(config):
        return parse_shape(config, on=on)
    return model_shape(config, base_bytes=_sum_base_bytes(recipe), on=on)


def _read_config(recipe: Recipe) -> Mapping[str, Any]:
    if recipe.base.source == DEMO:
        return make_config(recipe.demo.hidden_size)
    path = _find_config(recipe.base.source)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(config, dict):
            return config
        why = "it holds no object"
    except (OSError, ValueError) as error:
        why = str(error)
    raise UsageError(
        "the base is no Hugging Face checkpoint",
        on=str(path),
        why=why,
        then="name the directory that holds config.json and the safetensors; of a base on the hub,"
        " put its config.json there: sizes are said before anything is fetched",
    )


def _find_config(source: str) -> Path:
    """Return where the base's config.json lies; of one on the hub, where a copy of it is kept."""
    directory = Path(source)
    if source.startswith(HUB):
        directory = REPOSITORY / "recipes" / "models" / source.rpartition("/")[2]
    return directory / "config.json"


def _sum_base_bytes(recipe: Recipe) -> int:
    """Return the size of the user's safetensors; 0 where none are here."""
    if recipe.base.source == DEMO or recipe.base.source.startswith(HUB):
        return 0
    return sum(path.stat().st_size for path in Path(recipe.base.source).glob("model*.safetensors"))


def _model_base_bytes(recipe: Recipe, shape: Shape) -> int:
    """Projections are FP8 where the configuration says that they are quantized, the rest BF16."""
    bytes_each = 1 if "quantization_config" in _read_config(recipe) else 2
    wide = shape.count_parameters() - shape.count_projections()
    return bytes_each * shape.count_projections() + 2 * wide + _DEMO_REST_BYTES


def _sum_rows_bytes(recipe: Recipe) -> int:
    if recipe.dataset.source == DEMO:
        return (recipe.demo.rows + recipe.dataset.held_out) * (90 + 11 * recipe.demo.digits)
    # What is to be fetched from the hub only the stage that fetches can know.
    return sum(_sum_text_bytes(path) for path in list_row_paths(recipe.dataset))


def _sum_text_bytes(path: Path) -> int:
    factor = _TEXT_BYTES_PER_PARQUET_BYTE if path.suffix.lower() == ".parquet" else 1
    return factor * path.stat().st_size


def _estimate_scratch(recipe: Recipe, rows_bytes: int) -> int:
    if recipe.dataset.source == DEMO:
        return 0
    signed = recipe.dataset.near_duplicates > 0
    return int(rows_bytes * (_SCRATCH_PER_ROW_BYTE + signed * _SIGNATURES_PER_ROW_BYTE))


def _model_train_vram(recipe: Recipe, shape: Shape, trainable: int) -> int:
    """Weights + adapter with gradients and AdamW (16 B a parameter) + checkpointed activations
    (2 B a hidden element, layer and token) + one layer's working set + float32 logits + 1 GiB."""
    bytes_each = 0.516 if recipe.train.method == "qlora" else 2.0
    wide = shape.count_parameters() - shape.count_projections()
    weights = int(shape.count_projections() * bytes_each) + 2 * wide
    tokens = recipe.train.batch_size * recipe.dataset.sequence_length
    activations = tokens * (2 * shape.layers * shape.hidden + 8 * shape.ffn)
    return weights + 16 * trainable + activations + 4 * tokens * shape.vocabulary + (1 << 30)
