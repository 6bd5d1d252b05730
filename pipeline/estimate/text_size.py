"""config.json -> the bytes of the artifacts `text` and `merged`: the text model in BF16.

Weights, headers, index and config to the byte; the tokenizer's files are copied as they are, and
are counted where they are here.
"""

from pipeline.checkpoint.shard_plan import count_checkpoint_bytes, dump_json
from pipeline.checkpoint.text_config import make_text_config
from pipeline.checkpoint.text_tensors import list_tensor_shapes
from pipeline.checkpoint.tokenizer_files import CHAT_TEMPLATE, FILES, read_chat_template
from pipeline.errors import StageError
from pipeline.estimate.base_config import DEMONSTRATION, BaseConfig
from pipeline.estimate.shape import Shape, is_listed

# The demonstration's tokenizer, chat template and generation_config.json.
_DEMO_FILES_BYTES = 33_522


def count_text_bytes(base: BaseConfig, shape: Shape) -> int:
    """Return the bytes; of a family that is not known, those of its parameters."""
    if not is_listed(base.config):
        return 2 * shape.count_parameters()
    try:
        config = make_text_config(base.config, base.generation, has_head=not shape.tied)
        weights = count_checkpoint_bytes(list_tensor_shapes(config))
    except StageError:  # told when it is built
        return 2 * shape.count_parameters()
    return weights + len(dump_json(config)) + _count_tokenizer_bytes(base)


def _count_tokenizer_bytes(base: BaseConfig) -> int:
    if base.directory is None:
        return _DEMO_FILES_BYTES if base.origin == DEMONSTRATION else 0
    copied = [base.directory / name for name in FILES if name != CHAT_TEMPLATE]
    files = sum(path.stat().st_size for path in copied if path.is_file())
    try:
        return files + len(read_chat_template(base.directory).encode("utf-8"))
    except StageError:
        return files
