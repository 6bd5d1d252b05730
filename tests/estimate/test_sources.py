"""Sizes before anything is built: of rows that wait on the disk, of a base that is on the hub."""

import json
from pathlib import Path

import pytest

from pipeline.demo.shape import make_config
from pipeline.errors import UsageError
from pipeline.estimate import base_config
from pipeline.estimate.estimate import Estimate, estimate
from pipeline.recipe.recipe import read_recipe


def _estimate(folder: Path, dataset: str, base: str = 'source = "demo"') -> Estimate:
    path = folder / "mine.toml"
    path.write_text(f"[base]\n{base}\n[dataset]\n{dataset}\n")
    return estimate(read_recipe(path))


def test_rows_wait_in_a_scratch_file(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(b"x" * 1000)
    (tmp_path / "rows.parquet").write_bytes(b"x" * 1000)
    plain = _estimate(tmp_path, 'source = "rows.jsonl"\nnear_duplicates = 0')
    assert (plain.rows_bytes, plain.rows_scratch_bytes) == (1000, 1500)
    near = _estimate(tmp_path, 'source = "rows.jsonl"')
    assert (near.rows_bytes, near.rows_scratch_bytes) == (1000, 5000)
    packed = _estimate(tmp_path, 'source = "rows.parquet"')
    assert (packed.rows_bytes, packed.rows_scratch_bytes) == (3000, 15000)
    assert _estimate(tmp_path, 'source = "demo"').rows_scratch_bytes == 0


def test_a_base_on_the_hub_is_as_large_as_its_configuration_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_config, "MODELS", tmp_path)
    base = f'source = "hf://owner/some-base"\nrevision = "{"0" * 40}"'
    with pytest.raises(UsageError, match="no Hugging Face checkpoint") as caught:
        _estimate(tmp_path, 'source = "demo"', base)
    copy = tmp_path / "some-base" / "config.json"
    assert str(copy) in str(caught.value)
    copy.parent.mkdir(parents=True)
    config = make_config(256)
    config["text_config"]["max_position_embeddings"] = 32768
    copy.write_text(json.dumps(config))
    quantized = _estimate(tmp_path, 'source = "demo"', base)
    demo = _estimate(tmp_path, 'source = "demo"\n[demo]\nhidden_size = 256')
    assert quantized.weights == demo.weights
    assert quantized.base_bytes == quantized.weights.base_bytes
    del config["quantization_config"]
    copy.write_text(json.dumps(config))
    assert _estimate(tmp_path, 'source = "demo"', base).base_bytes > quantized.base_bytes * 1.3
