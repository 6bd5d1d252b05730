"""The one place that says how a teacher's thinking and solution become the assistant's text.

Training, evaluation and the demonstration all call this function, so that what is graded is what
was taught. `<think>` is plain text of several tokens, not a control token.
"""


def make_assistant_text(thinking: str, solution: str) -> str:
    """Return the assistant turn: the thinking in a think block, then the solution."""
    return f"<think>\n{thinking}\n</think>\n{solution}"
