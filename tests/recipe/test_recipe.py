"""The recipe: strict, with every error at once, each with its line, value and allowed range."""

from pathlib import Path

import pytest

from pipeline.artifact.key import REPOSITORY
from pipeline.errors import UsageError
from pipeline.recipe.recipe import read_recipe

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
        assert read_recipe(path, planning=True).name == path.stem


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
            ":6: [train] lerning_rate: unknown key; did you mean learning_rate?",
        ),
        (
            "[train]\nsequence_length = 4\n",
            ":6: [train] sequence_length: unknown key; it belongs in [dataset]",
        ),
        ("[trian]\nrank = 1\n", ":5: [trian]: unknown table; did you mean train?"),
        ("[zzz]\n", ":5: [zzz]: unknown table (known: base, demo, "),
        ("[train]\nrank = 0\n", ":6: [train] rank = 0: must be 1 to 1024"),
        ("[train]\nbatch_size = -3\n", "[train] batch_size = -3: must be at least 1"),
        ('[train]\nrank = "16"\n', '[train] rank = "16": must be a whole number, not text'),
        ("[train]\nrank = 16.0\n", "must be a whole number, not a number"),
        ("[train]\nrank = true\n", "must be a whole number, not true or false"),
        ("[train]\nrank = 2026-01-01\n", "must be a whole number, not a date"),
        ("[train]\nlearning_rate = nan\n", "[train] learning_rate = nan: must be 0.0 to 1.0"),
        ("[train]\nalpha = inf\n", "[train] alpha = inf: must be at least 0.0"),
        (
            '[train]\ntarget_modules = [\n  "q_proj",\n  "k_prj",\n]\n',
            ':8: [train] target_modules = ["q_proj", "k_prj"]: unknown k_prj; did you mean k_proj?',
        ),
        ('[gguf]\ntypes = ["q4_k_m"]\n', "unknown q4_k_m; did you mean Q4_K_M?"),
        ('[gguf]\ntypes = ["zzz"]\n', "unknown zzz (known: F32, F16, "),
        ("[gguf]\ntypes = []\n", ":6: [gguf] types = []: must be non-empty"),
        ("[gguf]\ntypes = [1]\n", "must be a list of texts"),
        ('[gguf]\ntypes = "Q8_0"\n', "must be a list of texts"),
        ('[gguf]\ntypes = ["IQ2_XS"]\n', "IQ2_XS is garbage without an importance matrix"),
        ('[gguf]\ntypes = ["IQ2_XS"]\n', "set [gguf] calibration"),
        ("[gguf]\ncalibration = -1\n", "[gguf] calibration = -1: must be 0 to 1000000"),
        ('[gguf]\ntensor_types = ["attn_v"]\n', 'not of the form "pattern=TYPE"'),
        ('[gguf]\ntensor_types = ["attn_v=Q9_0"]\n', "Q9_0 is no tensor type"),
        ('[gguf]\ntensor_types = ["attn_v=iq1_s"]\n', "IQ1_S needs an importance matrix"),
        ('[gguf]\ntensor_types = ["attn_(=Q8_0"]\n', "no regular expression"),
        ('[gguf]\ntypes = ["BF16", "BF16"]\n', "without repeats; BF16 stands twice"),
        (
            '[train]\nmethod = "qlra"\n',
            '[train] method = "qlra": must be one of lora, qlora, full; did you mean qlora?',
        ),
        ("[demo]\nhidden_size = 300\n", ":6: [demo] hidden_size = 300: must be a multiple of 256"),
        (
            '[gguf]\ntypes = ["Q8_0"]\n',
            ':6: [serve] type = "Q4_K_M" (the default): Q4_K_M is not in [gguf] types: Q8_0',
        ),
        (
            "[evaluate]\nproblems = 500\n",
            ":6: [evaluate] problems = 500: more than [dataset] held_out, which is 400",
        ),
        ("train = 3\n", "[dataset] train: unknown key"),
    ],
)
def test_what_cannot_be_meant_is_said(tmp_path: Path, text: str, told: str) -> None:
    assert f"{tmp_path / 'mine.toml'}:" in _read_error(tmp_path, _GOOD + text).why
    assert told in _read_error(tmp_path, _GOOD + text).why


def test_all_errors_come_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    """What is wrong by itself, what contradicts what, and what is not there."""
    text = (
        '[train]\nrankk = 1\nalpha = -1\n[serve]\nport = 0\n[base]\nsource = "nowhere"\n'
        '[demo]\nhidden_size = 300\n[dataset]\nsource = "rows.jsonl"\nseed = -1\n'
        '[[dataset.more]]\nsource = "demo"\nweight = 0\n[[dataset.more]]\nkeep = ["a"]\n'
    )
    error = _read_error(tmp_path, text)
    assert error.what == "the recipe has 11 errors"
    told = [line.strip().removeprefix(str(tmp_path)) for line in error.why.splitlines()]
    starts = [
        "/mine.toml:2: [train] rankk: unknown key; did you mean rank?",
        "/mine.toml:3: [train] alpha = -1: must be at least 0.0",
        "/mine.toml:5: [serve] port = 0: must be 1 to 65535",
        f'/mine.toml:7: [base] source = "nowhere": no directory {tmp_path / "nowhere"}',
        "/mine.toml:9: [demo] hidden_size = 300: must be a multiple of 256",
        f'/mine.toml:11: [dataset] source = "rows.jsonl": no file {tmp_path / "rows.jsonl"}',
        "/mine.toml:12: [dataset] seed = -1: must be at least 0",
        '/mine.toml:14: [[dataset.more]] source = "demo": no file',
        "/mine.toml:15: [[dataset.more]] weight = 0: must be 0.001 to 100.0",
        "/mine.toml:16: [[dataset.more]] source is missing: ",
        '/mine.toml:17: [[dataset.more]] keep = ["a"]: ',
    ]
    assert [line[: len(start)] for line, start in zip(told, starts, strict=True)] == starts


def test_what_depends_on_a_wrong_field_is_not_told_beside_it(tmp_path: Path) -> None:
    text = '[gguf]\ntypes = ["Q4_K"]\n[evaluate]\nproblems = 500\n'
    error = _read_error(tmp_path, _GOOD + "held_out = 0\n" + text)
    assert error.what == "the recipe has 2 errors"
    assert "is not in [gguf] types" not in error.why
    assert "more than" not in error.why


def test_missing_tables_are_told_without_a_line(tmp_path: Path) -> None:
    error = _read_error(tmp_path, "")
    assert error.what == "the recipe has 2 errors"
    assert "mine.toml: [base] source is missing: " in error.why
    assert "mine.toml: [dataset] source is missing: " in error.why


@pytest.mark.parametrize("text", ["base = 3\n", "[[base]]\n", 'dataset = "rows.jsonl"\n'])
def test_a_table_that_is_none_is_said(tmp_path: Path, text: str) -> None:
    assert "must be a table" in _read_error(tmp_path, text).why


@pytest.mark.parametrize("content", [b"[base\n", b"\xff\xfe", None])
def test_a_file_that_is_no_recipe_is_said(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "recipe.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"recipe"):
        read_recipe(path)


@pytest.mark.parametrize(
    ("text", "on"),
    [('[base]\nsource = "demo"\nsource = "x"\n', "mine.toml:3"), ("a = [", "mine.toml")],
)
def test_a_line_that_is_no_toml_is_named(tmp_path: Path, text: str, on: str) -> None:
    assert _read_error(tmp_path, text).on == str(tmp_path / on)


def test_an_importance_matrix_allows_the_smallest_types(tmp_path: Path) -> None:
    gguf = '[gguf]\ncalibration = 100\ntypes = ["Q4_K_M", "IQ1_S"]\ntensor_types = ["q=IQ2_XS"]\n'
    assert read_recipe(_write(tmp_path, _GOOD + gguf)).gguf.types == ("Q4_K_M", "IQ1_S")


def test_only_a_plan_goes_without_the_sources(tmp_path: Path) -> None:
    text = '[base]\nsource = "nowhere"\n[dataset]\nsource = "rows.jsonl"\n'
    why = _read_error(tmp_path, text).why
    assert f"no directory {tmp_path / 'nowhere'}" in why
    assert f"no file {tmp_path / 'rows.jsonl'}" in why
    recipe = read_recipe(_write(tmp_path, text), planning=True)
    assert recipe.base.source == str(tmp_path / "nowhere")
