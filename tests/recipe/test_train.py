"""[train]: what a method, a start, an optimizer and a device cannot be together."""

from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.recipe.recipe import read_recipe
from pipeline.recipe.train import Train

_GOOD = '[base]\nsource = "demo"\n[dataset]\nsource = "demo"\n[train]\n'


def _read_train(tmp_path: Path, text: str) -> Train:
    path = tmp_path / "mine.toml"
    path.write_text(_GOOD + text)
    return read_recipe(path).train


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('method = "full"\ninit = "pissa"\n', 'of an adapter; method "full" has none'),
        ('method = "full"\nrank = 64\n', 'rank = 64: it is of an adapter; method "full" has none'),
        ("max_steps = 0\nepochs = 0\n", "no step is taken"),
        ("learning_rate = 0\n", "nothing is learnt"),
        ("alpha = 0\n", "changes nothing"),
        ('max_steps = 700\ncheckpoint = "step:701"\n', "training ends after step 700"),
        ('epochs = 2.5\ncheckpoint = "epoch:3"\n', "training ends after 2.5 epochs"),
        ('method = "full"\nmodules_to_save = ["lm_head"]\n', "trains every weight as it is"),
        ('method = "qlora"\ninit = "pissa"\n', 'set method = "lora"'),
        ('method = "lora"\ninit = "loftq"\n', 'set method = "qlora"'),
        ("embedding_learning_rate = 1e-5\n", "needs embed_tokens or lm_head in modules_to_save"),
        ('accelerator = "cpu"\noptimizer = "paged_adamw_8bit"\n', 'optimizer = "adamw_8bit"'),
        ('accelerator = "cpu"\nactivation_offload = true\n', "no GPU to offload from"),
        ("processes = 3\n", "must be a multiple of processes"),
        ("processes = 4\nhosts = 3\n", "must be a multiple of hosts"),
        ("processes = 4\nhosts = 2\n", "several hosts need HOST:PORT"),
        ('processes = 4\nhosts = 2\naddress = "a:65536"\n', "several hosts need HOST:PORT"),
        ('sharding = "fsdp"\n', "only several GPUs have parts"),
        ('processes = 4\nsharding = "fsdp"\n', "a part of an NF4 weight is none"),
        ('processes = 4\ndeepspeed = "absent.json"\n', "is no configuration: [Errno 2]"),
        ('checkpoint = "first"\n', "'first' is none of last, best, step:N and epoch:N"),
        ('checkpoint = "step:0"\n', "'step:0' is none of"),
        ('modules_to_save = ["lm_heads"]\n', "did you mean lm_head?"),
    ],
)
def test_what_cannot_be_together_is_said(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        _read_train(tmp_path, text)
    assert "[train] " in caught.value.why
    assert told in caught.value.why


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ('method = "full"\nembedding_learning_rate = 1e-5\n', "tuned"),
        ('max_steps = 700\ncheckpoint = "step:700"\n', "adapter"),
        ('max_steps = 700\nepochs = 1\ncheckpoint = "epoch:2"\n', "adapter"),
        ('method = "lora"\ninit = "pissa"\nrslora = true\n', "adapter"),
        ('method = "qlora"\ninit = "loftq"\noptimizer = "paged_adamw_8bit"\n', "adapter"),
        ('modules_to_save = ["embed_tokens"]\nembedding_learning_rate = 1e-5\n', "adapter"),
    ],
)
def test_what_can_be_together_says_what_comes_of_it(tmp_path: Path, text: str, result: str) -> None:
    assert _read_train(tmp_path, text).result == result


def test_the_configuration_of_deepspeed_is_what_counts_not_its_place(tmp_path: Path) -> None:
    text = 'method = "lora"\nprocesses = 4\ndeepspeed = "zero.json"\n'
    (tmp_path / "zero.json").write_text('{"zero_optimization": {"stage": 2},\n "bf16": {}}')
    expected = '{"bf16": {}, "zero_optimization": {"stage": 2}}'
    assert _read_train(tmp_path, text).deepspeed == expected
    (tmp_path / "zero.json").write_text('{"zero_optimization": {"stage": 3}}')
    with pytest.raises(UsageError) as caught:
        _read_train(tmp_path, text)
    assert "of stage 3 no checkpoint is written" in caught.value.why
