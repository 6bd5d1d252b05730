"""Which tensors of a base are kept and dropped, from its config and from its headers."""

import json
from pathlib import Path
from typing import Any

from pipeline.demo.shape import make_config
from pipeline.estimate.base_config import BaseConfig, find_config, find_shipped
from pipeline.estimate.shape import parse_shape
from pipeline.estimate.weights import Weights, count_weights
from tests.estimate.shapes import DEVSTRAL


def count(config: BaseConfig) -> Weights:
    return count_weights(config, parse_shape(config.config, on=config.on))


def make_base(config: dict[str, Any], directory: Path | None = None) -> BaseConfig:
    return BaseConfig(config=config, generation={}, origin="x", on="x", directory=directory)


def test_tensors_of_the_flagship() -> None:
    """1,145 are published: 363 of the text model, 560 scales, 222 of vision."""
    config = find_config(f"/models/{DEVSTRAL}")
    assert config is not None
    found = count(config)
    assert (found.kept_tensors, found.scales, found.dropped_tensors) == (363, 560, 222)
    assert found.kept_parameters == 23_572_403_200
    assert found.dropped_parameters == 438_958_080
    assert found.base_bytes is not None
    assert round(found.base_bytes / 1e9, 1) == 25.8


def test_headers_say_what_the_config_cannot(tmp_path: Path) -> None:
    config = make_config(256) | {"vision_config": {"model_type": "unheard of"}}
    assert count(make_base(config)).dropped_tensors is None
    header = {
        "vision_tower.a.weight": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]},
        "language_model.model.layers.0.mlp.up_proj.weight_scale_inv": {
            "dtype": "BF16",
            "shape": [],
            "data_offsets": [12, 14],
        },
    }
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(14))
    found = count(make_base(config, tmp_path))
    assert (found.dropped_tensors, found.dropped_parameters, found.scales) == (1, 6, 1)
    assert found.base_bytes == 14


def test_a_shard_that_is_not_there_leaves_it_to_the_config(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    config = make_config(256)
    assert count(make_base(config, tmp_path)) == count(make_base(config))


def test_a_damaged_header_leaves_it_to_the_config(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    config = make_config(256)
    assert count(make_base(config, tmp_path)) == count(make_base(config))


def test_a_copy_is_found_by_the_last_part_of_the_source() -> None:
    for source in (f"hf://mistralai/{DEVSTRAL}", f"/a/b/{DEVSTRAL}", f"/a/b/{DEVSTRAL}/"):
        assert find_shipped(source).name == DEVSTRAL
        config = find_config(source)
        assert config is not None
        assert config.origin == "shipped copy"
    assert find_config("/a/b/unheard-of") is None
    assert find_config("/") is None
