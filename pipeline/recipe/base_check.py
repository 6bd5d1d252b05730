"""A base's config.json and chat template against the recipe: what cannot work, with the reason.

Only what the small files say for certain; weights are looked at by the stages. Standard library
alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.checkpoint.other_family import check_other, is_listed
from pipeline.checkpoint.quantization import KEYS, read_block
from pipeline.checkpoint.tokenizer_files import read_chat_template
from pipeline.errors import StageError, TristillError
from pipeline.estimate.base_config import find_config
from pipeline.estimate.gguf_size import list_tensors
from pipeline.estimate.shape import Shape, parse_shape
from pipeline.gguf_types import CONVERTED, Decoder, choose_types, parse_override
from pipeline.recipe.parsing import Problem
from pipeline.recipe.positions import Place
from pipeline.recipe.user_turn import lacks_user_turn

_BASE: Place = ("base", "source")
_K_QUANT_BLOCK = 256
# What configs call the longest sequence that the model's positions reach.
_LIMITS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
_SEQUENCES: Sequence[Place] = (
    ("dataset", "sequence_length"),
    ("serve", "context"),
    ("evaluate", "max_tokens"),
)


def find_base_problems(tables: Mapping[str, Any], source: str) -> list[Problem]:
    """Return what the base at `source` (an absolute path, or hf://...) cannot be used for.

    Nothing for a base whose config is not at hand, or cannot be read: who needs it says so.
    """
    try:
        found = find_config(source)
    except TristillError:
        return []
    if found is None or not isinstance(found.config.get("text_config") or {}, dict):
        return []
    config = found.config
    return [
        *_find_quantization_problems(config, tables),
        *_find_long_sequences(config, tables),
        *_find_uneven_rows(config, tables),
        *_find_template_problems(Path(source), tables),
    ]


def _find_quantization_problems(
    config: Mapping[str, Any], tables: Mapping[str, Any]
) -> Iterator[Problem]:
    """A base that cannot be turned into 16-bit weights; a 4-bit load needs those, too."""
    try:
        if is_listed(config):
            read_block(config)
        else:
            check_other(config)
    except StageError as error:
        what = f"{error.what}: {error.on}: {error.why}; {error.then}"
        text = config.get("text_config") or {}
        if tables["train"].method == "qlora" and any(
            place.get(key) for place in (config, text) for key in KEYS
        ):
            what += (
                '; [train] method = "qlora" loads 16-bit weights in 4 bits, and refuses a'
                " checkpoint that is quantized already"
            )
        yield Problem(at=_BASE, value=tables["base"].source, what=what)


def _find_long_sequences(config: Mapping[str, Any], tables: Mapping[str, Any]) -> Iterator[Problem]:
    text = config.get("text_config") or config
    name = next((each for each in _LIMITS if isinstance(text.get(each), int)), None)
    if name is None:
        return
    limit = text[name]
    for place in _SEQUENCES:
        table, field = map(str, place)
        if (tokens := getattr(tables[table], field)) > limit:
            yield Problem(
                at=place,
                value=tokens,
                what=f"more tokens than the model has positions: at most {limit}, says {name} in"
                " the base's config.json",
                of=(_BASE,),
            )


def _find_uneven_rows(config: Mapping[str, Any], tables: Mapping[str, Any]) -> Iterator[Problem]:
    """Types whose blocks of 256 do not fill the rows: the quantizer would silently take others."""
    gguf = tables["gguf"]
    try:
        shape = parse_shape(config, on=tables["base"].source) if is_listed(config) else None
        overrides = [
            parse_override(each, has_imatrix=gguf.calibration > 0) for each in gguf.tensor_types
        ]
    except TristillError:
        return
    for number, file_type in enumerate(gguf.types):
        if shape is None or file_type in CONVERTED:
            continue
        misfits = find_misfits(shape, file_type, overrides, has_imatrix=gguf.calibration > 0)
        if misfits:
            yield Problem(
                at=("gguf", "types", number),
                value=list(gguf.types),
                what=_explain_misfits(file_type, misfits),
                of=(_BASE, ("gguf", "tensor_types"), ("gguf", "calibration")),
            )


def find_misfits(
    shape: Shape, file_type: str, overrides: Sequence[Any], *, has_imatrix: bool
) -> dict[str, tuple[int, str, str]]:
    """Return the elements of a row, the type meant and the type given, by a pattern of the names,
    of the tensors whose rows are no whole number of blocks."""
    tensors = list_tensors(shape)
    if all(size[-1] % _K_QUANT_BLOCK == 0 for size in tensors.values() if len(size) > 1):
        return {}
    whole = {
        name: (*size[:-1], -(-size[-1] // _K_QUANT_BLOCK) * _K_QUANT_BLOCK)
        for name, size in tensors.items()
    }
    decoder = Decoder(
        architecture=shape.architecture,
        layers=shape.layers,
        heads=shape.heads,
        kv_heads=shape.kv_heads,
    )
    given, meant = (
        choose_types(file_type, sizes, decoder, overrides, has_imatrix=has_imatrix)
        for sizes in (tensors, whole)
    )
    return {
        _make_pattern(name): (tensors[name][-1], meant[name], kind)
        for name, kind in given.items()
        if kind != meant[name]
    }


def _make_pattern(name: str) -> str:
    """Return what [gguf] tensor_types would name the tensor by in every layer."""
    *outer, last = name.removesuffix(".weight").split(".")
    # Without the mark, "output" would mean "attn_output", too.
    return last if outer else f"^{last}"


def _explain_misfits(file_type: str, misfits: Mapping[str, tuple[int, str, str]]) -> str:
    told = ", ".join(
        f"{name} ({columns} elements) would be {given} instead of {meant}"
        for name, (columns, meant, given) in misfits.items()
    )
    asked = ", ".join(f'"{name}={given}"' for name, (_, _, given) in misfits.items())
    return (
        f"{file_type} has blocks of {_K_QUANT_BLOCK} elements, and rows of the base are no whole"
        f" number of them: {told}; take Q8_0, Q5_0 or Q4_0, or ask for it:"
        f" [gguf] tensor_types = [{asked}]"
    )


def _find_template_problems(base: Path, tables: Mapping[str, Any]) -> Iterator[Problem]:
    try:
        template = read_chat_template(base)
    except (TristillError, OSError, ValueError, AttributeError):
        return
    if lacks_user_turn(template):
        yield Problem(
            at=_BASE,
            value=tables["base"].source,
            what="its chat template writes no user's turn, so that no problem would reach the"
            " model; write one into chat_template.jinja beside the weights",
        )
