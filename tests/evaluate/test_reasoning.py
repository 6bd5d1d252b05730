"""The form of a reasoning: what the documents that people follow show, and what goes wrong."""

import pytest

from pipeline.evaluate.reasoning import count_repetition, list_steps, measure_reasoning

QUADRATIC = """<think>
Step 1: Identify coefficients: a=3, b=-11, c=6
Step 2: Apply quadratic formula: x = (11 ± √(121 - 72)) / 6
Step 3: Simplify: x = (11 ± √49) / 6 = (11 ± 7) / 6
Step 4: x₁ = 18/6 = 3, x₂ = 4/6 = 2/3
Step 5: Verify both solutions satisfy original equation ✓
</think>

FINAL ANSWER: x = 3 or x = 2/3"""


def test_a_numbered_reasoning_that_checks_itself() -> None:
    found = measure_reasoning(QUADRATIC)
    assert found.well_formed
    assert (found.steps, found.verifies, found.agrees) == (5, True, True)
    assert found.words == 58
    assert found.depth == pytest.approx(0.4 * 0.5 + 0.3 * 58 / 150 + 0.2 + 0.1, abs=1e-4)


@pytest.mark.parametrize(
    ("thinking", "steps"),
    [
        ("1. a\nbecause\n2. b\n3) c", 3),
        ("- a\n- b", 2),
        ("1+7+0=08\n3+8+0=11\n2+7+1=10", 3),
        ("First this. Then 3.5 of that! Done?", 3),
        ("**Step 1**: a\n\n**Step 2**: b", 2),
        ("one", 1),
        ("", 0),
    ],
)
def test_steps(thinking: str, steps: int) -> None:
    assert len(list_steps(thinking)) == steps


@pytest.mark.parametrize(
    "text",
    [
        "6018",
        "<think>a</think>",
        "<think></think>6",
        "<think>a",
        "a</think>6",
        "so <think>a</think>6",
        "<think>a</think><think>b</think>6",
    ],
)
def test_what_is_not_well_formed(text: str) -> None:
    assert not measure_reasoning(text).well_formed


def test_an_answer_that_the_reasoning_never_came_to() -> None:
    assert measure_reasoning("<think>3 + 4 = 7\nso 7</think>7.0").agrees
    assert not measure_reasoning("<think>3 + 4 = 7\nso 7</think>8").agrees
    assert measure_reasoning("<think>The capital is Paris.</think>Paris.").agrees
    assert not measure_reasoning("<think>The capital is Paris.</think>Par").agrees
    assert not measure_reasoning("8").agrees


def test_repetition_is_the_share_of_runs_seen_before() -> None:
    assert count_repetition("a b c d e f") == 0
    assert count_repetition("a b c") == 0
    assert count_repetition(" ".join(["x"] * 13)) == pytest.approx(0.9)
    assert count_repetition("a b c d a b c d") == pytest.approx(0.2)
