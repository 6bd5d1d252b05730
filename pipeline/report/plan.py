"""What a build would do, and what could be deleted, for `plan`."""

import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.artifact.gc import Garbage
from pipeline.artifact.steps import Step
from pipeline.estimate import Estimate
from pipeline.report.table import format_bytes, format_table


def make_plan(
    steps: Sequence[Step],
    why: Mapping[str, str],
    *,
    dispensable: Collection[str],
    garbage: Garbage,
    sizes: Estimate,
    store: Path,
) -> dict[str, Any]:
    """Return the plan: what is sealed, what is built and why (`why`, by name), and the sizes.

    Bytes of what is not built yet are estimates. `dispensable` holds the directories' names of
    sealed artifacts that nothing asked for still needs, `garbage` what no recipe reaches.
    """
    could_go = {step.rule.name for step in steps if step.directory in dispensable}
    return {
        "artifacts": [
            {
                "name": step.rule.name,
                "key": step.key,
                "state": "build" if step.rule.name in why else "cached",
                "why": _explain_state(step, why, could_go),
                "bytes": step.size_bytes,
                "could_be_deleted": step.rule.name in could_go,
            }
            for step in steps
        ],
        "parameters": {"base": sizes.base_parameters, "trainable": sizes.trainable_parameters},
        "gguf": {name: {"bytes": size} for name, size in sizes.gguf_bytes.items()},
        "disk": {
            "needed_bytes": sum(step.rule.needed_bytes for step in steps if step.rule.name in why),
            "free_bytes": shutil.disk_usage(store).free,
            "intermediate_bytes": sum(
                step.size_bytes for step in steps if step.rule.name in could_go
            ),
            "unreached_bytes": garbage.size_bytes,
        },
        "vram": {"train_bytes": sizes.train_vram_bytes, "serve_bytes": sizes.serve_vram_bytes},
    }


def _explain_state(step: Step, why: Mapping[str, str], could_go: Collection[str]) -> str:
    if step.rule.name in why:
        return why[step.rule.name]
    if step.artifact is None:
        return "not needed: what is made from it is sealed"
    return "sealed; could be deleted" if step.rule.name in could_go else "sealed"


def format_plan(plan: Mapping[str, Any]) -> str:
    """Return the plan as a table."""
    rows = [
        (each["name"], each["state"], format_bytes(each["bytes"]), each["why"])
        for each in plan["artifacts"]
    ]
    parameters, vram = plan["parameters"], plan["vram"]
    share = 100 * parameters["trainable"] / parameters["base"]
    return (
        format_table(("artifact", "state", "bytes", "why"), rows)
        + f"\nparameters: {parameters['base']:,}; trainable {parameters['trainable']:,}"
        + f" ({share:.2f} %)\n"
        + _format_disk(plan["disk"])
        + f"vram: about {vram['train_bytes']:,} bytes to train,"
        + f" {vram['serve_bytes']:,} to serve\n"
    )


def _format_disk(disk: Mapping[str, int]) -> str:
    text = f"disk: {disk['needed_bytes']:,} bytes needed, {disk['free_bytes']:,} free\n"
    if disk["intermediate_bytes"]:
        text += f"      {disk['intermediate_bytes']:,} could be deleted (gc --intermediates)\n"
    if disk["unreached_bytes"]:
        text += f"      {disk['unreached_bytes']:,} are reached by no recipe (gc)\n"
    return text
