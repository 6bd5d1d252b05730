"""The check of a GPU passes where training works, and cannot pass on what is no GPU."""

import pytest

from pipeline.sft import gpu_check
from pipeline.sft.model import on_gpu

pytestmark = pytest.mark.train


def test_it_loads_in_nf4_and_takes_a_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["cuda" if on_gpu() else "cpu"]) == 0
    device, load, attention, step = capsys.readouterr().out.splitlines()
    assert device.startswith("PASS device: ")
    assert load.startswith("PASS NF4 load: 14 layers in NF4")
    assert attention.startswith("PASS attention: rows of equal length: flash")
    assert step.startswith("PASS optimizer step: loss ")
    assert "14 matrices moved" in step


def test_another_device_than_asked_for_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["cpu"] if on_gpu() else []) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("FAIL device: ")
