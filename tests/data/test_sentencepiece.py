"""Tokenizers of SentencePiece's kind, which write a space as "▁" and leave one out where a text
begins: the same promises as of byte-level ones."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.checkpoint.chosen_template import choose_template
from pipeline.data.fitting import fit
from pipeline.data.mask_check import check_row, read_borders
from pipeline.data.rendering import Rendered, Renderer
from pipeline.data.row import Row
from pipeline.data.style import Style
from pipeline.data.templates import BUILT_IN
from pipeline.data.view import split_pieces
from tests.data.canonical import assistant, chat, user
from tests.data.families import GEMMA, MISTRAL

pytestmark = pytest.mark.train

SPACE = "\u2581"
LETTERS = "abcdefghijklmnopqrstuvwxyz?"

# Before Metaspace was there, as of Llama 2 and the first Mistral 7B; since; and Gemma's.
KINDS = {
    "prepend": ("mistral-v3", MISTRAL, "<s>", "</s>"),
    "metaspace": ("mistral-v3", MISTRAL, "<s>", "</s>"),
    "bare": ("gemma", ("<unk>", *GEMMA), "<bos>", "<eos>"),
}


def write_sentencepiece(folder: Path, kind: str) -> None:
    """Write a tokenizer of that kind: bytes for what it has no letter for, two merges."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

    _, controls, bos, eos = KINDS[kind]
    pieces = [*(f"<0x{byte:02X}>" for byte in range(256)), SPACE, *LETTERS, SPACE + "a", SPACE * 2]
    vocabulary = {piece: i for i, piece in enumerate([*controls, *pieces])}
    merges = [(SPACE, "a"), (SPACE, SPACE)]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>")
    )
    written = normalizers.Replace(" ", SPACE)
    read = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if kind == "prepend":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), written])
    elif kind == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "first", split=False)
    else:
        tokenizer.normalizer = written
    strip = [] if kind == "bare" else [decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence([*read, *strip])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in controls])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "TokenizersBackend",
        "bos_token": bos,
        "eos_token": eos,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.fixture(scope="module")
def renderers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Renderer]:
    made = {}
    for kind, (template, *_) in KINDS.items():
        folder = tmp_path_factory.mktemp(kind)
        write_sentencepiece(folder, kind)
        choose_template(folder, BUILT_IN[template])
        made[kind] = Renderer(folder, Style())
    return made


def render(renderer: Renderer, row: Row) -> Rendered:
    """Return the row's ids and mask, which pass the check of every row."""
    rendered = renderer.render(row, on="row")
    borders = read_borders(
        renderer.tokenizer, template=renderer.template.source, ends=renderer.end_ids
    )
    ids, mask = rendered.input_ids, rendered.completion_mask
    check_row(row, ids, mask, borders=borders, tokenizer=renderer.tokenizer)
    return rendered


PARTS = st.sampled_from([*"ab? \n", "é", "\U0001f600", "[INST]", "</s>"])
TEXTS = st.lists(PARTS, max_size=8).map("".join)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60)
@given(texts=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=2))
def test_the_answers_are_taught_and_nothing_else(
    renderers: dict[str, Renderer], kind: str, texts: list[tuple[str, str]]
) -> None:
    renderer = renderers[kind]
    turns = [[user(f"q{asked}"), assistant(f"{said}z")] for asked, said in texts]
    rendered = render(renderer, chat(*(turn for pair in turns for turn in pair)))
    pieces = split_pieces(renderer.tokenizer, rendered.input_ids, rendered.completion_mask)
    answers = [""]
    for piece in pieces:
        if piece.supervised and piece.is_control:
            answers.append("")
        elif piece.supervised:
            answers[-1] += piece.text
    # A template may write a space before an answer, and the tokenizer one more.
    assert [each.lstrip(" ") for each in answers] == [
        *(f"{said}z".lstrip(" ") for _, said in texts),
        "",
    ]
    shown = "".join(piece.text for piece in pieces)
    assert all(f"q{asked}" in shown for asked, _ in texts)


@pytest.mark.parametrize("kind", KINDS)
def test_the_ids_are_those_of_the_whole_text(renderers: dict[str, Renderer], kind: str) -> None:
    renderer = renderers[kind]
    row = chat(user("a b"), assistant("b a"), user(" a\n"), assistant("  b"))
    messages = [{"role": each.role, "content": each.content} for each in row.messages]
    own = renderer.tokenizer.apply_chat_template(
        messages, chat_template=renderer.template.source, return_dict=False
    )
    assert render(renderer, row).input_ids == own


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("limit", [8, 9, 30])
def test_raw_text_is_cut_and_nothing_of_it_is_lost(
    renderers: dict[str, Renderer], kind: str, limit: int
) -> None:
    renderer, text = renderers[kind], " ab a\n\u00e9\U0001f600  b a " * 3
    borders = read_borders(renderer.tokenizer, ends=renderer.end_ids)
    fitted = fit(renderer, Row(id="r", text=text), limit=limit, too_long="drop", on="row")
    for row, each in fitted:
        named = {"borders": borders, "tokenizer": renderer.tokenizer, "continues": each.continues}
        check_row(row, each.input_ids, each.completion_mask, **named)
        assert len(each.input_ids) <= limit
    assert "".join(row.text or "" for row, _ in fitted) == text
    whole = renderer.render(Row(id="r", text=text), on="row").input_ids
    bos = renderer.tokenizer.bos_token_id
    assert [i for _, each in fitted for i in each.input_ids if i != bos] == whole[1:]


@pytest.mark.parametrize("kind", KINDS)
def test_a_piece_keeps_its_space(renderers: dict[str, Renderer], kind: str) -> None:
    renderer = renderers[kind]
    rendered = render(renderer, chat(user("b a"), assistant("b a")))
    pieces = split_pieces(renderer.tokenizer, rendered.input_ids, rendered.completion_mask)
    assert [piece.text for piece in pieces].count(" a") == 2
