"""Raw text that is too long: cut as seldom as can be, never inside a character."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.data.fitting import DROPPED, find_cuts, fit
from pipeline.data.rendering import Renderer
from pipeline.data.row import Row
from pipeline.data.style import Style
from tests.tiny_text import BOS, EOS, byte_ids, write_tokenizer

pytestmark = pytest.mark.train


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    folder = tmp_path_factory.mktemp("text")
    write_tokenizer(folder)
    return Renderer(folder, Style())


@given(
    text=st.text(st.characters(exclude_categories=["Cs", "Co"]), min_size=1, max_size=60),
    limit=st.integers(8, 40),
)
def test_nothing_is_lost_and_every_piece_fits(renderer: Renderer, text: str, limit: int) -> None:
    """All ids in their order, BOS before each piece, EOS behind the last, a character whole."""
    fitted = fit(renderer, Row(id="r", text=text), limit=limit, too_long="drop", on="row")
    body = [i for _, each in fitted for i in each.input_ids[1:]]
    assert body == [*byte_ids(text), EOS]
    assert "".join(row.text or "" for row, _ in fitted) == text
    assert [each.continues for _, each in fitted] == [True] * (len(fitted) - 1) + [False]
    for row, each in fitted:
        assert each.input_ids[0] == BOS
        assert 2 < len(each.input_ids) == each.length <= limit
        assert each.completion_mask == [0] + [1] * (each.length - 1)
        assert each.input_ids[1:] == [*byte_ids(row.text or ""), *([EOS] * (not each.continues))]
    if len(fitted) > 1:
        assert [row.id for row, _ in fitted] == [f"r#{n + 1}" for n in range(len(fitted))]


def test_a_text_that_fits_is_one_row_with_its_own_id(renderer: Renderer) -> None:
    row = Row(id="r", text="abcdef")
    ((same, fitted),) = fit(renderer, row, limit=8, too_long="drop", on="row")
    assert same is row
    assert fitted.input_ids == [BOS, *byte_ids("abcdef"), EOS]


@pytest.mark.parametrize(
    ("tokens", "most", "pieces"), [(10, 4, 3), (8, 4, 2), (9, 4, 3), (71, 7, 11), (2, 1, 0)]
)
def test_as_few_pieces_of_about_one_length(tokens: int, most: int, pieces: int) -> None:
    spans = [(n, n + 1) for n in range(tokens - 1)] + [(tokens - 1, tokens - 1)]
    cuts = find_cuts(spans, most)
    lengths = [high - low for low, high in pairwise(cuts)]
    assert len(lengths) == pieces
    assert sum(lengths) in (0, tokens)
    assert not lengths or max(lengths) <= most


def test_a_character_of_more_tokens_than_fit_is_left_out(renderer: Renderer) -> None:
    assert find_cuts([(0, 1)] * 9 + [(1, 1)], 8) == []
    answer = fit(renderer, Row(id="r", text="\U0001f600" * 2), limit=4, too_long="drop", on="row")
    assert [each.dropped for _, each in answer] == [DROPPED]
