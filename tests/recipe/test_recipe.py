"""The recipe: strict, with every error at once, each with its line."""

from pathlib import Path

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.errors import UsageError
from pipeline.recipe.recipe import read_recipe
from pipeline.recipe.reference import make_reference

_GOOD = '[base]\nsource = "demo"\n[dataset]\nsource = "demo"\n'


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def _read_error(tmp_path: Path, text: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read_recipe(_write(tmp_path, text))
    assert caught.value.exit_code == 2
    return caught.value


def test_every_shipped_recipe_is_read() -> None:
    for path in (REPOSITORY / "recipes").glob("*.toml"):
        assert read_recipe(path).name == path.stem


def test_reference_documents_every_field() -> None:
    written = (REPOSITORY / "recipes" / "reference.toml").read_text()
    assert written == make_reference(), "run `make reference`"


def test_a_minimal_recipe_has_the_defaults(tmp_path: Path) -> None:
    recipe = read_recipe(_write(tmp_path, _GOOD))
    assert recipe.name == "mine"
    assert recipe.train.learning_rate == 1e-4
    assert recipe.gguf.types == ("Q4_K_M",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "[train]\nlerning_rate = 1e-4\n",
            "line 6: [train] lerning_rate: unknown key; did you mean learning_rate?",
        ),
        ("[trian]\nrank = 1\n", "line 5: unknown table [trian]; did you mean train?"),
        ("[train]\nrank = 0\n", "[train] rank = 0: must be in 1 to 1024"),
        ('[train]\nrank = "16"\n', "must be int, not str"),
        ("[train]\nrank = true\n", "must be int, not bool"),
        ("[train]\nlearning_rate = nan\n", "must be in"),
        ('[train]\ntarget_modules = ["q_proj", "k_prj"]\n', "unknown k_prj; did you mean k_proj?"),
        ('[gguf]\ntypes = ["Q4_K"]\n', "unknown Q4_K; did you mean Q4_K_"),
        ("[gguf]\ntypes = []\n", "must be non-empty"),
        ('[gguf]\ntypes = ["IQ2_XS"]\n', "IQ2_XS is garbage without an importance matrix"),
        ('[gguf]\ntypes = ["IQ2_XS"]\n', "set [gguf] calibration"),
        ("[gguf]\ncalibration = -1\n", "[gguf] calibration = -1: must be in 0 to"),
        ('[gguf]\ntensor_types = ["attn_v"]\n', 'not of the form "pattern=TYPE"'),
        ('[gguf]\ntensor_types = ["attn_v=Q9_0"]\n', "Q9_0 is no tensor type"),
        ('[gguf]\ntensor_types = ["attn_v=iq1_s"]\n', "IQ1_S needs an importance matrix"),
        ('[gguf]\ntensor_types = ["attn_(=Q8_0"]\n', "no regular expression"),
        ('[gguf]\ntypes = ["BF16", "BF16"]\n', "without repeats"),
        ('[train]\nmethod = "qlra"\n', "must be one of lora, qlora"),
        ("[demo]\nhidden_size = 300\n", "multiple of 256"),
        ('[gguf]\ntypes = ["Q8_0"]\n', "[serve] type: Q4_K_M is not in [gguf] types"),
        ("train = 3\n", "unknown"),
    ],
)
def test_what_cannot_be_meant_is_said(tmp_path: Path, text: str, told: str) -> None:
    assert told in _read_error(tmp_path, _GOOD + text).why


def test_all_errors_come_at_once(tmp_path: Path) -> None:
    error = _read_error(tmp_path, _GOOD + "[train]\nrankk = 1\nalpha = -1\n[serve]\nport = 0\n")
    assert error.what == "the recipe has 3 errors"
    assert all(word in error.why for word in ("line 6", "line 7", "line 9"))


def test_a_missing_source_is_said(tmp_path: Path) -> None:
    text = '[base]\nsource = "nowhere"\n[dataset]\nsource = "rows.jsonl"\n'
    why = _read_error(tmp_path, text).why
    assert f"no directory {tmp_path / 'nowhere'}" in why
    assert f"no file {tmp_path / 'rows.jsonl'}" in why


@pytest.mark.parametrize("content", [b"[base\n", b"\xff\xfe", None])
def test_a_file_that_is_no_recipe_is_said(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "recipe.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"recipe"):
        read_recipe(path)


def test_an_importance_matrix_allows_the_smallest_types(tmp_path: Path) -> None:
    gguf = '[gguf]\ncalibration = 100\ntypes = ["Q4_K_M", "IQ1_S"]\ntensor_types = ["q=IQ2_XS"]\n'
    assert read_recipe(_write(tmp_path, _GOOD + gguf)).gguf.types == ("Q4_K_M", "IQ1_S")
