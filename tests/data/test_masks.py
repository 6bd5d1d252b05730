"""The view marks exactly what training labels; a mask that cannot be right is an error."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data import masks
from pipeline.data.encoding import read_tokenizer
from pipeline.data.mask_check import Borders, check_batch, check_row, read_borders
from pipeline.data.row import Message, Row, ToolCall, write_row
from pipeline.data.statistics import read_batches
from pipeline.data.view import COLOUR, PLAIN, make_view, split_pieces
from pipeline.errors import StageError
from tests.data.arrow_files import HandRow, make_hand_row, write_arrow
from tests.tiny_text import BOS, CONTROL_TOKENS, END_INST, EOS, INST, byte_ids, write_tokenizer

pytestmark = pytest.mark.train

GOOD = make_hand_row("r1", "1+1?", "<think>\n+\n</think>\n2", source="a.jsonl:2")
PAD = CONTROL_TOKENS.index("<pad>")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("text")
    write_tokenizer(folder)
    return folder


def make_dataset(folder: Path, *rows: HandRow) -> Path:
    write_arrow(folder / "train.arrow", [make_hand_row("r0", "a", "b"), *rows])
    write_arrow(folder / "held_out.arrow", [make_hand_row("h0", "c", "d")])
    return folder


@pytest.mark.parametrize("row", ["r1", "1"])
def test_a_row_is_shown_by_id_or_number(
    tmp_path: Path, text: Path, row: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert masks.main([str(make_dataset(tmp_path, GOOD)), str(text), row]) == 0
    head, view = capsys.readouterr().out.split("\n", 1)
    assert head == f"row r1 (a.jsonl:2): {len(GOOD.ids)} tokens, {sum(GOOD.mask)} supervised"
    # The problem is not marked; every character of the answer is one token here, and is.
    answer = "".join(f"⟦{c}⟧" for c in "<think>⏎+⏎</think>⏎2")
    assert view.replace("\n", "") == f"<s>[INST]1+1?[/INST]{answer}⟦</s>⟧"


def test_a_held_out_row_is_shown_by_its_id(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, rows = make_dataset(tmp_path, GOOD), tmp_path / "rows"
    rows.mkdir()
    (rows / "train.jsonl").write_text("")
    answer = Message(role="assistant", content="d")
    held_out = Row(id="h0", messages=(Message(role="user", content="c"), answer))
    path = rows / "held_out.jsonl"
    path.write_text(write_row(held_out) + "\n")
    assert masks.main([str(dataset), str(text), "h0", str(rows)]) == 0
    assert "<s>[INST]c[/INST]⟦d⟧⟦</s>⟧" in capsys.readouterr().out
    wrong = replace(answer, content="e")
    path.write_text(write_row(replace(held_out, messages=(held_out.messages[0], wrong))) + "\n")
    assert masks.main([str(dataset), str(text), "h0", str(rows)]) == 5


def test_colours_on_a_terminal(text: Path) -> None:
    view = make_view(read_tokenizer(text), GOOD.ids, GOOD.mask, COLOUR)
    inst, end_inst = (f"\x1b[1m{name}\x1b[0m" for name in ("[INST]", "[/INST]"))
    assert view.startswith(f"\x1b[1m<s>\x1b[0m{inst}1+1?{end_inst}\x1b[32m<")
    assert view.endswith("\x1b[1m\x1b[32m</s>\x1b[0m\x1b[0m")


def test_a_row_s_escape_sequences_do_not_reach_the_terminal(text: Path) -> None:
    row = make_hand_row("r", "\x1b]0;x\x07\u202e", "\x9b31m\r")
    view = make_view(read_tokenizer(text), row.ids, row.mask, PLAIN)
    assert view == (r"<s>[INST]\u{1b}]0;x\u{7}\u{202e}[/INST]⟦\u{9b}⟧⟦3⟧⟦1⟧⟦m⟧⟦\u{d}⟧⟦</s>⟧")


@given(question=st.text(max_size=9), answer=st.text(max_size=9))
def test_the_pieces_are_the_texts(text: Path, question: str, answer: str) -> None:
    tokenizer = read_tokenizer(text)
    row = make_hand_row("r", question, answer)
    pieces = split_pieces(tokenizer, row.ids, row.mask)
    shown = [p.text for p in pieces if not p.is_control and not p.supervised]
    taught = [p.text for p in pieces if p.supervised]
    assert ("".join(shown), "".join(taught)) == (question, f"{answer}</s>")
    assert sum(piece.tokens for piece in pieces) == len(row.ids)


def test_no_such_row(tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = make_dataset(tmp_path)
    for row in ("r99", "1", "-1", "²"):
        assert masks.main([str(dataset), str(text), row]) == 5
        assert "there is no such row" in capsys.readouterr().err
    assert masks.main([]) == 2


def change(row: HandRow, at: int, bit: int) -> HandRow:
    mask = list(row.mask)
    mask[at] = bit
    return replace(row, mask=mask)


BAD = {
    "has no supervised token": replace(GOOD, mask=[0] * len(GOOD.mask)),
    "the EOS of an answer is not supervised": change(GOOD, -1, 0),
    "covers a token of the prompt": change(GOOD, GOOD.ids.index(END_INST), 1),
}


@pytest.mark.parametrize("said", BAD)
def test_a_mask_that_cannot_be_right(
    tmp_path: Path, text: Path, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert masks.main([str(make_dataset(tmp_path, BAD[said])), str(text), "r1"]) == 5
    told = capsys.readouterr()
    assert said in told.err
    assert "row r1" in told.err
    # The row is shown in the message, too, which a stage's log has without the view.
    assert "[INST]1+1?" in told.err
    assert "[INST]1+1?" in told.out


@pytest.mark.parametrize("said", BAD)
@pytest.mark.parametrize("place", [0, 2, 6])
def test_every_row_of_a_batch_is_checked(tmp_path: Path, text: Path, said: str, place: int) -> None:
    tokenizer = read_tokenizer(text)
    rows = [make_hand_row(f"good{n}", "ab" * n, "c" * n) for n in range(6)]
    rows.insert(place, BAD[said])
    path = write_arrow(tmp_path / "a.arrow", rows, rows_per_batch=99)
    (batch,) = read_batches(path)
    with pytest.raises(StageError, match=said) as caught:
        check_batch(batch, read_borders(tokenizer), tokenizer)
    assert caught.value.on.startswith("row r1, ")


def test_good_rows_pass(tmp_path: Path, text: Path) -> None:
    tokenizer = read_tokenizer(text)
    two_turns = HandRow(
        row_id="two",
        ids=[BOS, INST, 80, END_INST, 81, EOS, INST, 82, END_INST, 83, EOS],
        mask=[0, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1],
    )
    raw = HandRow(row_id="raw", ids=[BOS, 80, 81, EOS], mask=[0, 1, 1, 1])
    for batch in read_batches(write_arrow(tmp_path / "a.arrow", [GOOD, two_turns, raw])):
        check_batch(batch, read_borders(tokenizer), tokenizer)


def test_an_end_in_the_middle_of_a_row(tmp_path: Path, text: Path) -> None:
    row = HandRow(
        row_id="r1",
        ids=[BOS, INST, 80, END_INST, 81, EOS, INST, 82, END_INST, 83, EOS],
        mask=[0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 1],
    )
    tokenizer = read_tokenizer(text)
    (batch,) = read_batches(write_arrow(tmp_path / "a.arrow", [row]))
    with pytest.raises(StageError, match="the EOS of an answer is not supervised"):
        check_batch(batch, read_borders(tokenizer), tokenizer)


def test_borders_are_read_off_the_template(text: Path) -> None:
    tokenizer = read_tokenizer(text)
    own = Borders(
        ends=frozenset({EOS}),
        prompts=frozenset({BOS, PAD, INST, END_INST}),
        forms=frozenset({("", "")}),
        thought_forms=frozenset({("<think>\n", "\n</think>\n", "")}),
    )
    assert read_borders(tokenizer) == own
    # A turn that ends with another token, and a template that fails.
    other = "{% for m in messages %}{{ m.content }}[IMG]{% endfor %}"
    image = CONTROL_TOKENS.index("[IMG]")
    assert read_borders(tokenizer, template=other).ends == {EOS, image}
    failing = "{{ raise_exception('no') }}"
    named = read_borders(tokenizer, template=failing)
    assert named.prompts == {BOS, PAD}
    assert not named.forms | named.thought_forms


def test_a_system_prompt_may_speak_of_the_marks_of_an_answer(text: Path) -> None:
    # As Mistral's reasoning models have it; [TOOL_CALLS] stands in for a mark of thinking.
    template = (
        "{{ bos_token }}[IMG]Think in [TOOL_CALLS].{% for m in messages %}"
        "{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% elif m.content is string %}"
        "{{ m.content + eos_token }}{% else %}"
        "[TOOL_CALLS]{{ m.content[0].thinking }}[TOOL_CALLS]{{ m.content[1].text + eos_token }}"
        "{% endif %}{% endfor %}"
    )
    image = CONTROL_TOKENS.index("[IMG]")
    borders = read_borders(read_tokenizer(text), template=template)
    assert borders.prompts == {BOS, PAD, INST, END_INST, image}
    assert ("", "", "") in borders.thought_forms


USER = Message(role="user", content="1+1?")
ANSWER = Message(role="assistant", content="2", thinking="+")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (ANSWER, None),
        (Message(role="assistant", content="<think>\n+\n</think>\n2"), None),
        (Message(role="assistant", content="3", thinking="+"), "and the answer '+3'"),
        (Message(role="assistant", content="2", thinking="-"), "and the answer '-2'"),
        (Message(role="assistant", content="2"), r"it is '<think>\n+\n</think>\n2'"),
    ],
)
def test_the_supervised_text_is_the_assistant_s_own(
    text: Path, answer: Message, said: str | None
) -> None:
    tokenizer = read_tokenizer(text)
    row = Row(id="r1", messages=(USER, answer), source="a.jsonl:2")
    named = {"borders": read_borders(tokenizer), "tokenizer": tokenizer}
    if said is None:
        check_row(row, GOOD.ids, GOOD.mask, **named)
        return
    with pytest.raises(StageError, match="not the assistant's own") as caught:
        check_row(row, GOOD.ids, GOOD.mask, **named)
    assert said in caught.value.why
    assert caught.value.on.startswith("row r1 (a.jsonl:2), ")


def test_one_character_of_the_question_is_supervised(
    tmp_path: Path, text: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # As where a template had no token between the two.
    at = GOOD.ids.index(END_INST)
    ids = GOOD.ids[:at] + GOOD.ids[at + 1 :]
    mask = [0] * (at - 1) + [1] * (len(ids) - at + 1)
    dataset = make_dataset(tmp_path, replace(GOOD, ids=ids, mask=mask))
    rows = tmp_path / "rows"
    rows.mkdir()
    lines = [Row(id="r11", text="x"), Row(id="r1", messages=(USER, ANSWER))]
    (rows / "train.jsonl").write_text("".join(write_row(row) + "\n" for row in lines))
    assert masks.main([str(dataset), str(text), "r1", str(rows)]) == 5
    assert r"it is '?<think>\n+\n</think>\n2', and the answer '+2'" in capsys.readouterr().err


def test_a_tool_s_name_must_be_taught(text: Path) -> None:
    tokenizer = read_tokenizer(text)
    named = {"borders": read_borders(tokenizer), "tokenizer": tokenizer}
    call = ToolCall(id="abc", name="sum_up", arguments={"of": [1, 1]})
    answer = Message(role="assistant", content="", tool_calls=(call,))
    row = Row(id="r", messages=(USER, answer))
    good = make_hand_row("r", "1+1?", '[{"name": "sum_up"}]')
    check_row(row, good.ids, good.mask, **named)
    bad = make_hand_row("r", "1+1?", '[{"name": "add"}]')
    with pytest.raises(StageError, match="not the assistant's own"):
        check_row(row, bad.ids, bad.mask, **named)


def test_raw_text_and_more_turns_than_answers(text: Path) -> None:
    tokenizer = read_tokenizer(text)
    named = {"borders": read_borders(tokenizer), "tokenizer": tokenizer}
    ids = [BOS, *byte_ids("abc"), EOS]
    check_row(Row(id="r", text="abc"), ids, [0, 1, 1, 1, 1], **named)
    with pytest.raises(StageError, match="not the assistant's own"):
        check_row(Row(id="r", text="abcd"), ids, [0, 1, 1, 1, 1], **named)
    with pytest.raises(StageError) as caught:
        check_row(Row(id="r", messages=(USER,)), ids, [0, 1, 1, 1, 1], **named)
    assert caught.value.why == "1 turns are supervised, and the assistant has 0"


def test_a_tokenizer_that_composes_accents(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, normalizers

    write_tokenizer(tmp_path)
    path = tmp_path / "tokenizer.json"
    changed = Tokenizer.from_file(str(path))
    changed.normalizer = normalizers.NFC()
    changed.save(str(path))
    tokenizer = read_tokenizer(tmp_path)
    named = {"borders": read_borders(tokenizer), "tokenizer": tokenizer}
    good = make_hand_row("r", "q", "caf\u00e9")
    for said in ("caf\u00e9", "cafe\u0301"):
        answer = Message(role="assistant", content=said)
        check_row(Row(id="r", messages=(USER, answer)), good.ids, good.mask, **named)
    row = Row(id="r", messages=(USER, Message(role="assistant", content="cafe")))
    with pytest.raises(StageError, match="not the assistant's own"):
        check_row(row, good.ids, good.mask, **named)
