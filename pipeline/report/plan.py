"""What a build would do, what it needs, and what could be deleted: the document of `plan --json`.

docs/plan.schema.json describes it; names carry units. What cannot be known here is null.
"""

import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.artifact.gc import Garbage
from pipeline.artifact.steps import Step
from pipeline.estimate.disk import Item, sum_disk
from pipeline.estimate.estimate import Estimate
from pipeline.estimate.outlook import OnGpu, Outlook
from pipeline.estimate.rows import RowCount
from pipeline.recipe.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is to be done.

    `why` says of each step that is to be built why; `unkeyed` names those whose keys cannot be
    known here; `dispensable` holds the directories' names of sealed artifacts that nothing asked
    for still needs, `garbage` what no recipe reaches.
    """

    steps: Sequence[Step]
    wanted: Sequence[str]
    why: Mapping[str, str]
    unkeyed: Collection[str]
    dispensable: Collection[str]
    garbage: Garbage
    store: Path


def make_plan(recipe: Recipe, work: Work, *, sizes: Estimate, outlook: Outlook) -> dict[str, Any]:
    """Return the plan. Bytes of what is not built yet are estimates."""
    return {
        "recipe": recipe.name,
        "base": {
            "source": recipe.base.source,
            "config": sizes.config.on,
            "origin": sizes.config.origin,
        },
        "artifacts": _list_artifacts(work),
        "parameters": {"base": sizes.base_parameters, "trainable": sizes.trainable_parameters},
        "tensors": {
            "kept": sizes.weights.kept_tensors,
            "kept_parameters": sizes.weights.kept_parameters,
            "dropped": sizes.weights.dropped_tensors,
            "dropped_parameters": sizes.weights.dropped_parameters,
            "scales": sizes.weights.scales,
        },
        "gguf": {
            name: {
                "bytes": size.size_bytes,
                "tensor_bytes": size.tensor_bytes,
                "metadata_bytes": size.metadata_bytes,
                "is_exact": size.is_exact,
                "why": size.why,
            }
            for name, size in sizes.gguf.items()
        },
        "disk": _describe_disk(work),
        **_describe_memory(recipe, outlook),
        "rows": _describe_rows(outlook.rows) if outlook.rows else None,
        "training": {
            "method": recipe.train.method,
            "sequence_length": recipe.dataset.sequence_length,
            "epochs": None if recipe.train.max_steps else recipe.train.epochs,
            "steps": outlook.steps,
        },
        "gpus": [_describe_gpu(each) for each in outlook.gpus],
        "verdicts": list(outlook.verdicts),
        "advice": list(outlook.advice),
    }


def _list_artifacts(work: Work) -> list[dict[str, Any]]:
    could_go = {step.rule.name for step in work.steps if step.directory in work.dispensable}
    return [
        {
            "name": step.rule.name,
            "key": None if step.rule.name in work.unkeyed else step.key,
            "state": "build" if step.rule.name in work.why else "cached",
            "why": _explain_state(step, work.why, could_go),
            "bytes": step.size_bytes,
            "inputs": sorted(set(step.rule.inputs.values())),
            "could_be_deleted": step.rule.name in could_go,
        }
        for step in work.steps
    ]


def _explain_state(step: Step, why: Mapping[str, str], could_go: Collection[str]) -> str:
    if step.rule.name in why:
        return why[step.rule.name]
    if step.artifact is None:
        return "not needed: what is made from it is sealed"
    return "sealed; could be deleted" if step.rule.name in could_go else "sealed"


def _describe_disk(work: Work) -> dict[str, int]:
    missing = [
        Item(
            name=step.rule.name,
            size_bytes=step.size_bytes,
            scratch_bytes=step.rule.scratch_bytes,
            inputs=tuple(step.rule.inputs.values()),
        )
        for step in work.steps
        if step.rule.name in work.why
    ]
    use = sum_disk(missing, work.wanted)
    could_go = [step for step in work.steps if step.directory in work.dispensable]
    return {
        "needed_bytes": use.peak_bytes,
        "end_bytes": use.total_bytes,
        "peak_with_gc_bytes": use.peak_gc_bytes,
        "end_with_gc_bytes": use.end_gc_bytes,
        "free_bytes": shutil.disk_usage(work.store).free,
        "intermediate_bytes": sum(step.size_bytes for step in could_go),
        "unreached_bytes": work.garbage.size_bytes,
    }


def _describe_memory(recipe: Recipe, outlook: Outlook) -> dict[str, Any]:
    train, serve = outlook.train, outlook.serve
    return {
        "vram": {"train_bytes": train.total_bytes, "serve_bytes": serve.total_bytes},
        "memory": {
            "train": {
                "device": recipe.train.accelerator,
                "bytes": train.total_bytes,
                "parts": dict(train.parts),
                "host_bytes": train.host_bytes,
                "layer_bytes": train.layer_bytes,
                "logits_bytes": train.logits_bytes,
            },
            "serve": {
                "device": recipe.serve.accelerator,
                "bytes": serve.total_bytes,
                "parts": dict(serve.parts),
                "cache_type": serve.cache_type,
                "cache_bytes": dict(serve.cache_bytes),
            },
        },
    }


def _describe_rows(rows: RowCount) -> dict[str, Any]:
    return {
        "read": rows.read,
        "train": rows.train,
        "held_out": rows.held_out,
        "tokens": rows.tokens,
        "supervised_tokens": rows.supervised_tokens,
        "too_long_share": rows.too_long_share,
        "is_exact": not rows.why,
        "why": rows.why,
    }


def _describe_gpu(each: OnGpu) -> dict[str, Any]:
    return {
        "name": each.gpu.name,
        "nominal_gb": each.gpu.nominal_gb,
        "usable_bytes": each.gpu.usable_bytes,
        "trains": each.trains,
        "serves": each.serves,
        "longest_sequence": each.longest_sequence,
        "step_s": each.step_s,
        "total_s": each.total_s,
        "cost": each.cost,
    }
