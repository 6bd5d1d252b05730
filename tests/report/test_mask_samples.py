"""Rows are read off the data set's own page as they stand there."""

from pathlib import Path

import pytest

from pipeline.data.encoding import read_tokenizer
from pipeline.data.report import Cleaning, Split, make_page
from pipeline.data.statistics import read_statistics
from pipeline.report.mask_samples import make_samples, read_page_rows, read_shown
from tests.data.arrow_files import make_hand_row, write_arrow
from tests.tiny_text import write_tokenizer

pytestmark = pytest.mark.train

_EVIL = "</script><!-- <script> &amp; \u2028"


def test_texts_and_marks_are_those_of_the_page(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    arrow = write_arrow(tmp_path / "train.arrow", [make_hand_row("r1", f"1{_EVIL}", "é2\n")])
    splits = [Split(name="train", arrow=arrow, statistics=read_statistics(arrow, {}))]
    page = make_page(splits, Cleaning(dropped={}, examples={}), read_tokenizer(tmp_path))
    (row,) = read_page_rows(page)
    sample = read_shown(row)
    texts = {
        kind: "".join(text for text, *kinds in sample.pieces if kinds == list(kind))
        for kind in ((False, False), (False, True), (True, False), (True, True))
    }
    assert texts == {
        (False, False): f"1{_EVIL}",
        (False, True): "<s>[INST][/INST]",
        (True, False): "é2\n",
        (True, True): "</s>",
    }
    shown = make_samples([sample])
    assert "<script>" not in shown
    assert '<span class="taught control">&lt;/s&gt;</span>' in shown
    assert '<span class="taught">⏎\n</span>' in shown
