from pipeline.sft.trace import make_assistant_text


def test_the_think_block_stands_before_the_solution() -> None:
    assert make_assistant_text("1+1\n=2", "2") == "<think>\n1+1\n=2\n</think>\n2"
