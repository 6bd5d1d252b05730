"""Answers are read and compared as people would."""

import pytest

from pipeline.evaluate.grade import is_correct, read_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("6018", "6018"),
        ("  6018\n", "6018"),
        ("<think>\n1+7+0=08\n</think>\n6018", "6018"),
        ("<think>a</think>b<think>c</think> d ", "d"),
        ("thoughts without a start</think>\n7", "7"),
        ("<think>\nnever ends", None),
        ("<think>x</think>\n", None),
        ("", None),
    ],
)
def test_the_answer_follows_the_last_think_block(text: str, answer: str | None) -> None:
    assert read_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "solution"),
    [
        ("6018", "6018"),
        ("6,018.", "6018"),
        ("1,234,567", "1234567"),
        ("6018", "6,018"),
        ("<think>x</think>\nParis. ", "Paris"),
        ("3.14", "3.14"),
    ],
)
def test_right_answers(text: str, solution: str) -> None:
    assert is_correct(text, solution)


@pytest.mark.parametrize(
    ("text", "solution"),
    [
        ("6019", "6018"),
        ("The answer is 6018", "6018"),
        ("<think>6018</think>\n", "6018"),
        ("<think>6018", "6018"),
        ("12,34", "1234"),
        ("-6018", "6018"),
        ("paris", "Paris"),
        ("", ""),
    ],
)
def test_wrong_answers(text: str, solution: str) -> None:
    assert not is_correct(text, solution)


@pytest.mark.parametrize(
    ("form", "text", "solution", "right"),
    [
        ("number", "<think>48/2 = 24</think>She sold 72 clips.", "48/2 = 24\n#### 72", True),
        ("number", "so it is $1,250.00.", "#### 1250", True),
        ("number", "that is 5 m, not 6", "#### 5", False),
        ("number", "it is −3", "-3", True),
        ("number", "x2 = a3", "3", False),
        ("number", "none", "3", False),
        ("number", "<think>3", "3", False),
        ("choice", "The answer is (B).", "B", True),
        ("choice", "A is wrong, so it's C", "C", True),
        ("choice", "ABC", "C", False),
        ("contains", "It is the Eiffel tower in paris.", "Paris", True),
        ("contains", "Parisians", "Paris", False),
        ("contains", "anything", "", False),
        ("exact", "", "", False),
    ],
)
def test_each_form_of_an_answer(form: str, text: str, solution: str, right: bool) -> None:
    assert is_correct(text, solution, form) is right
