"""config.json + recipe -> sizes before anything is built. Standard library only, no weights.

What a build needs to know of its artifacts; memory and time stand in `outlook.py`. Parameters, and
tensor data of dense decoders of the families that are known, are exact; so are whole GGUF files
where the tokenizer's files are at hand. docs/plan.md says which numbers are models, and how good.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.estimate.base_config import BaseConfig, make_demo_config, read_config
from pipeline.estimate.gguf_size import FileForm, GgufSize, Metadata, measure_metadata, size_file
from pipeline.estimate.shape import Shape, is_listed, model_shape, parse_shape
from pipeline.estimate.text_size import count_text_bytes
from pipeline.estimate.training import count_trainable, make_training_form, model_training
from pipeline.estimate.weights import Weights, count_weights
from pipeline.gguf_types import parse_override
from pipeline.recipe.dataset import DEMO
from pipeline.recipe.recipe import Recipe
from pipeline.recipe.row_sources import list_row_paths
from pipeline.recipe.template import read_template_source

# A token of 1 to 4 characters becomes an id of 4 bytes and a mark of 1.
_DATASET_BYTES_PER_ROW_BYTE = 2

# Text in columns is compressed to about a third.
_TEXT_BYTES_PER_PARQUET_BYTE = 3

# Each row's line and its places in the indexes; and, for near duplicates, two signatures. Rows of
# half a kilobyte took 1.5 and 4.7.
_SCRATCH_PER_ROW_BYTE = 1.5
_SIGNATURES_PER_ROW_BYTE = 3.5

# A page of 400 rows, each token with its number: 0.3 to 5 MB, by the length of the rows.
_REPORT_BYTES = 1_000_000

# Headers, tokenizer and chat template beside the demonstration's tensors, and the bytes of a row.
_DEMO_FILES_BYTES = 51_500
_DEMO_ROW_BYTES, _DEMO_DIGIT_BYTES = 147, 11


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Sizes of a recipe's artifacts, and what they follow from."""

    config: BaseConfig
    shape: Shape
    weights: Weights
    base_parameters: int
    trainable_parameters: int
    base_bytes: int
    text_bytes: int
    rows_bytes: int
    # The scratch file that rows wait in.
    rows_scratch_bytes: int
    dataset_bytes: int
    report_bytes: int
    adapter_bytes: int
    gguf: Mapping[str, GgufSize]
    # Mostly the Q8_0 file that is measured, and gone afterwards.
    imatrix_bytes: int
    # The logits of the 16-bit file, in float32.
    divergence_scratch_bytes: int
    train_vram_bytes: int

    @property
    def gguf_bytes(self) -> Mapping[str, int]:
        """Bytes of each GGUF by its type."""
        return {name: each.size_bytes for name, each in self.gguf.items()}


def estimate(recipe: Recipe, *, planning: bool = False) -> Estimate:
    """Return the sizes of the recipe's artifacts; UsageError when config.json is not understood.

    Only when `planning` are the tokenizer's files read, for the bytes of a GGUF's metadata.
    """
    base = _read_base(recipe)
    shape = _find_shape(recipe, base)
    form = make_training_form(recipe)
    weights = count_weights(base, shape)
    rows_bytes = _sum_rows_bytes(recipe)
    metadata = measure_metadata(
        base,
        shape,
        name=recipe.gguf.name,
        planning=planning,
        chat_template=read_template_source(recipe.dataset.template),
    )
    trained = count_trainable(shape, form)
    return Estimate(
        config=base,
        shape=shape,
        weights=weights,
        base_parameters=shape.count_parameters(),
        trainable_parameters=trained,
        base_bytes=_find_base_bytes(recipe, weights),
        text_bytes=count_text_bytes(base, shape),
        rows_bytes=rows_bytes,
        rows_scratch_bytes=_estimate_scratch(recipe, rows_bytes),
        dataset_bytes=_DATASET_BYTES_PER_ROW_BYTE * rows_bytes,
        report_bytes=_REPORT_BYTES,
        adapter_bytes=4 * trained,
        gguf={each: _size_file(recipe, base, shape, metadata, each) for each in recipe.gguf.types},
        imatrix_bytes=_size_file(recipe, base, shape, metadata, "Q8_0").size_bytes,
        divergence_scratch_bytes=4 * shape.vocabulary * recipe.evaluate.divergence_tokens,
        train_vram_bytes=model_training(shape, form).total_bytes,
    )


def _read_base(recipe: Recipe) -> BaseConfig:
    if recipe.base.source == DEMO:
        return make_demo_config(recipe.demo.hidden_size)
    return read_config(recipe.base.source)


def _find_shape(recipe: Recipe, base: BaseConfig) -> Shape:
    if is_listed(base.config):
        return parse_shape(base.config, on=base.on)
    return model_shape(base.config, base_bytes=_sum_safetensors(recipe), on=base.on)


def _size_file(
    recipe: Recipe, base: BaseConfig, shape: Shape, metadata: Metadata, file_type: str
) -> GgufSize:
    has_imatrix = recipe.gguf.calibration > 0
    overrides = [parse_override(each, has_imatrix=has_imatrix) for each in recipe.gguf.tensor_types]
    form = FileForm(file_type=file_type, overrides=overrides, has_imatrix=has_imatrix)
    return size_file(shape, form, metadata, is_listed=is_listed(base.config))


def _find_base_bytes(recipe: Recipe, weights: Weights) -> int:
    """Return the bytes of the base's files where they are here, else those of its tensors."""
    if recipe.base.source == DEMO:
        return (weights.base_bytes or 0) + _DEMO_FILES_BYTES
    return _sum_safetensors(recipe) or weights.base_bytes or 2 * weights.kept_parameters


def _sum_safetensors(recipe: Recipe) -> int:
    """Return the size of the user's safetensors; 0 where there are none."""
    if recipe.base.source == DEMO:
        return 0
    return sum(path.stat().st_size for path in Path(recipe.base.source).glob("model*.safetensors"))


def _sum_rows_bytes(recipe: Recipe) -> int:
    if recipe.dataset.source == DEMO:
        row_bytes = _DEMO_ROW_BYTES + _DEMO_DIGIT_BYTES * recipe.demo.digits
        return (recipe.demo.rows + recipe.dataset.held_out) * row_bytes
    # What is to be fetched from the hub only the stage that fetches can know.
    paths = list_row_paths(recipe.dataset)
    return sum(_sum_text_bytes(path) for path in paths if path.is_file())


def _sum_text_bytes(path: Path) -> int:
    factor = _TEXT_BYTES_PER_PARQUET_BYTE if path.suffix.lower() == ".parquet" else 1
    return factor * path.stat().st_size


def _estimate_scratch(recipe: Recipe, rows_bytes: int) -> int:
    if recipe.dataset.source == DEMO:
        return 0
    signed = recipe.dataset.near_duplicates > 0
    return int(rows_bytes * (_SCRATCH_PER_ROW_BYTE + signed * _SIGNATURES_PER_ROW_BYTE))
