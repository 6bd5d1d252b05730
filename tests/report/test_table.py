"""How answers look: columns that line up, and ages that need no arithmetic."""

import datetime

import pytest

from pipeline.report.table import format_age, format_seconds, format_table, shorten_digest

_NOW = datetime.datetime(2026, 3, 2, 12, 0, 0, tzinfo=datetime.UTC)


def test_numbers_stand_right_and_words_left() -> None:
    rows = [("a", "1,234", "word"), ("longer", "5", "w")]
    assert format_table(("name", "bytes", "what"), rows).splitlines() == [
        "name    bytes  what",
        "------  -----  ----",
        "a       1,234  word",
        "longer      5  w",
    ]


def test_a_number_that_is_not_known_leaves_the_others_right() -> None:
    rows = [("a", "1,234", "-"), ("b", "-", "-")]
    assert format_table(("name", "bytes", "what"), rows).splitlines()[2:] == [
        "a     1,234  -",
        "b         -  -",
    ]


def test_a_table_without_rows_has_its_headings() -> None:
    assert format_table(("name", "bytes"), []) == "name  bytes\n----  -----\n"


@pytest.mark.parametrize(
    ("sealed_at", "age"),
    [
        ("2026-03-02T12:00:00.000+00:00", "just now"),
        ("2026-03-02T11:59:59.001+00:00", "just now"),
        ("2026-03-02T11:59:59.000+00:00", "1 s ago"),
        ("2026-03-02T11:59:01+00:00", "59 s ago"),
        ("2026-03-02T11:59:00+00:00", "1 min ago"),
        ("2026-03-02T11:00:00.001+00:00", "59 min ago"),
        ("2026-03-02T09:00:00+00:00", "3 h ago"),
        ("2026-03-02T10:00:00+01:00", "3 h ago"),
        ("2026-03-02T09:00:00", "3 h ago"),
        ("2026-03-01T12:00:01+00:00", "23 h ago"),
        ("2026-03-01T12:00:00+00:00", "1 d ago"),
        ("2025-03-02T12:00:00+00:00", "365 d ago"),
        ("2026-03-02T12:00:00.001+00:00", "in the future"),
        ("2027-01-01T00:00:00+00:00", "in the future"),
        ("yesterday", "-"),
        ("", "-"),
        (None, "-"),
    ],
)
def test_an_age_is_in_its_largest_whole_unit(sealed_at: str | None, age: str) -> None:
    assert format_age(sealed_at, _NOW) == age


def test_what_nobody_noted_is_a_dash() -> None:
    assert (format_seconds(None), format_seconds(0.04)) == ("-", "0.0")


def test_a_digest_is_shortened_to_what_names_an_artifact() -> None:
    assert shorten_digest("0123456789abcdef" * 4) == "0123456789ab..."
