"""A run on another GPU is compared by its losses, one on the same by its bytes."""

import json
from pathlib import Path

import pytest

from pipeline.report.other_hardware import describe_other_hardware
from pipeline.sft.checkpoint_list import Evaluation, write_list


def _write(folder: Path, device: str, *losses: float) -> Path:
    folder.mkdir()
    (folder / "hardware.json").write_text(json.dumps({"devices": [device]}))
    write_list(
        [Evaluation(step=n, epoch=1.0, loss=loss, accuracy=0.5) for n, loss in enumerate(losses)],
        folder,
    )
    return folder


@pytest.mark.parametrize(
    ("device", "losses", "agrees"),
    [
        ("RTX 3090", (1.01, 0.105), True),
        ("RTX 3090", (1.03, 0.1), False),
        ("RTX 3090", (1.0, 0.111), False),
        ("RTX 3090", (1.0,), False),
        ("H100", (1.0, 0.1), False),  # the same: its bytes must not differ
    ],
)
def test_losses_decide_on_other_hardware_alone(
    tmp_path: Path, device: str, losses: tuple[float, ...], agrees: bool
) -> None:
    sealed = _write(tmp_path / "sealed", "H100", 1.0, 0.1)
    told = describe_other_hardware(sealed, _write(tmp_path / "rebuilt", device, *losses))
    assert (told is not None) == agrees
    if told:
        assert "made on H100; again on RTX 3090: bytes differ" in told


def test_what_is_no_training_run_is_compared_by_its_bytes(tmp_path: Path) -> None:
    assert describe_other_hardware(tmp_path, tmp_path) is None
