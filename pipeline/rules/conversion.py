"""Rules from trained weights to the files that others take."""

from pipeline.artifact.rule import Rule
from pipeline.estimate.estimate import Estimate
from pipeline.gguf_types import CONVERTED, NEED_IMATRIX
from pipeline.recipe.recipe import Recipe
from pipeline.rules.fields import RENDERING, TEMPLATE, THREADS, make_template, name_fields


def make_merge_rules(recipe: Recipe, estimate: Estimate) -> list[Rule]:
    """What is made of an adapter on demand: weights that were trained whole are merged as they
    are."""
    merged = Rule(
        name="merged",
        image="convert",
        stage="checkpoint.merged",
        options={"cpu_threads": recipe.train.cpu_threads},
        fields=THREADS,
        inputs={"text": "text", "adapter": "adapter"},
        estimated_bytes=estimate.text_bytes,
    )
    adapter_gguf = Rule(
        name="adapter-gguf",
        image="convert",
        stage="checkpoint.adapter_gguf",
        options={"model_name": recipe.gguf.name, **make_template(recipe)},
        fields={"options.model_name": "gguf.name", **TEMPLATE},
        inputs={"base": "base", "adapter": "adapter"},
        estimated_bytes=estimate.adapter_bytes,
    )
    return [merged, adapter_gguf] if recipe.train.result == "adapter" else []


def make_chat_rule() -> Rule:
    """The chat template in a few lines, for those who serve by Ollama; nothing is made from it."""
    return Rule(
        name="ollama",
        image="convert",
        stage="export.ollama",
        options={},
        inputs={"text": "text"},
    )


def make_imatrix_rules(recipe: Recipe, estimate: Estimate) -> list[Rule]:
    """Made only when the recipe asks for it; every quantized file then uses it."""
    rule = Rule(
        name="imatrix",
        image="convert",
        stage="checkpoint.imatrix",
        options={
            "calibration": recipe.gguf.calibration,
            **{each: getattr(recipe.dataset, each) for each in RENDERING},
            **make_template(recipe),
            "cpu_threads": recipe.train.cpu_threads,
        },
        fields=name_fields("gguf", "calibration")
        | name_fields("dataset", *RENDERING)
        | TEMPLATE
        | THREADS,
        inputs=_list_weights(recipe) | {"rows": "rows"},
        estimated_bytes=estimate.imatrix_bytes,
    )
    return [rule] if recipe.gguf.calibration else []


def make_gguf_rules(recipe: Recipe, estimate: Estimate) -> list[Rule]:
    files = [_make_gguf_rule(each, recipe, estimate) for each in recipe.gguf.types]
    return [*files, *_make_base_gguf(recipe, estimate)]


def _make_gguf_rule(file_type: str, recipe: Recipe, estimate: Estimate) -> Rule:
    """Each file comes from the checkpoint in one pass; no artifact lies between."""
    is_quantized = file_type not in CONVERTED
    overrides = recipe.gguf.tensor_types if is_quantized else ()
    imatrix = {"imatrix": "imatrix"} if is_quantized and recipe.gguf.calibration else {}
    return Rule(
        name=f"gguf-{file_type}",
        image="convert",
        stage="checkpoint.gguf",
        options={
            "type": file_type,
            "model_name": recipe.gguf.name,
            "tensor_types": overrides,
            **make_template(recipe),
        },
        fields={
            "options.model_name": "gguf.name",
            "options.tensor_types": "gguf.tensor_types",
            **TEMPLATE,
        },
        inputs=_list_weights(recipe) | imatrix,
        estimated_bytes=estimate.gguf_bytes[file_type],
    )


def _make_base_gguf(recipe: Recipe, estimate: Estimate) -> list[Rule]:
    """The base alone in the type that is served, for the adapters of several recipes: it has
    nothing of this one's, so that all of them share it. Types that need an importance matrix have
    none: theirs is made with an adapter."""
    rule = Rule(
        name="base-gguf",
        image="convert",
        stage="checkpoint.gguf",
        options={
            "type": recipe.serve.type,
            "model_name": "base",
            "tensor_types": (),
            **make_template(recipe),
        },
        fields={"options.type": "serve.type", **TEMPLATE},
        inputs={"base": "base"},
        estimated_bytes=estimate.gguf_bytes[recipe.serve.type],
    )
    is_shared = recipe.train.result == "adapter" and recipe.serve.type not in NEED_IMATRIX
    return [rule] if is_shared else []


def _list_weights(recipe: Recipe) -> dict[str, str]:
    """Return the inputs that the trained weights are read from: a base and its adapter, or a
    checkpoint that was trained whole."""
    if recipe.train.result == "adapter":
        return {"base": "base", "adapter": "adapter"}
    return {"base": recipe.train.result}
