"""What the host plans is what the image writes: names, shapes, sizes."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.checkpoint import gguf
from pipeline.checkpoint.llama_source import import_gguf
from pipeline.checkpoint.text_config import read_config
from pipeline.checkpoint.text_tensors import DEFAULTS, FAMILIES, list_gguf_shapes
from pipeline.decoder_shape import parse_shape
from pipeline.gguf_size import list_tensors, sum_tensor_bytes
from pipeline.gguf_types import parse_override
from tests.checkpoint import tiny_families

pytestmark = pytest.mark.convert


def test_every_family_is_known_to_both() -> None:
    assert set(tiny_families.FAMILIES) == set(FAMILIES)


def test_a_config_without_what_its_class_knows_has_the_same_tensors() -> None:
    config: dict[str, Any] = {
        "model_type": "gemma3_text",
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
    }
    shape = parse_shape(config, on="config.json")
    whole = {**DEFAULTS["gemma3_text"], **config, "tie_word_embeddings": True}
    assert list_tensors(shape) == list_gguf_shapes(whole)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_file_is_as_large_as_planned(tmp_path: Path, family: str) -> None:
    tiny_families.write_family(tmp_path / "base", family)
    config = read_config(tmp_path / "base" / "config.json")
    shape = parse_shape(config, on="config.json")
    for file_type, asked in [("Q4_K_M", ()), ("Q3_K_L", ("attn_q=Q8_0",)), ("F16", ())]:
        (tmp_path / file_type).mkdir()
        options = gguf.Options(type=file_type, model_name="x", tensor_types=asked, chat_template="")
        gguf.run({"base": tmp_path / "base"}, options, tmp_path / file_type)
        reader = import_gguf().GGUFReader(tmp_path / file_type / gguf.GGUF)
        found = {each.name: tuple(reversed(each.shape.tolist())) for each in reader.tensors}
        assert found == list_tensors(shape)
        size = (tmp_path / file_type / gguf.GGUF).stat().st_size - reader.data_offset
        assert size == sum_tensor_bytes(shape, file_type, [parse_override(each) for each in asked])
