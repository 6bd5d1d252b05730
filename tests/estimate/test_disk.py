"""What a build adds to the disk, at the end and at most."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.estimate.disk import Item, sum_disk


def test_intermediates_go_when_nothing_needs_them() -> None:
    items = [
        Item(name="base", size_bytes=100, inputs=()),
        Item(name="text", size_bytes=200, inputs=("base",)),
        Item(name="adapter", size_bytes=1, inputs=("text",)),
        Item(name="gguf", size_bytes=50, inputs=("base", "adapter")),
    ]
    use = sum_disk(items, ["gguf", "adapter"])
    assert use.total_bytes == 351
    assert use.peak_gc_bytes == 301  # base, text and adapter; text goes before the file is made
    assert use.end_gc_bytes == 51


def test_what_is_sealed_already_costs_nothing() -> None:
    items = [Item(name="gguf", size_bytes=50, inputs=("base", "adapter"))]
    assert sum_disk(items, ["gguf"]).total_bytes == 50
    assert sum_disk([], ["gguf"]).peak_gc_bytes == 0


def test_scratch_files_count_while_their_stage_runs() -> None:
    items = [
        Item(name="rows", size_bytes=10, scratch_bytes=500, inputs=()),
        Item(name="dataset", size_bytes=20, scratch_bytes=20, inputs=("rows",)),
    ]
    use = sum_disk(items, ["dataset"])
    assert (use.total_bytes, use.peak_bytes, use.peak_gc_bytes, use.end_gc_bytes) == (
        30,
        510,
        510,
        20,
    )
    assert sum_disk(items[1:], ["dataset"]).peak_bytes == 40


@given(
    st.lists(st.tuples(st.integers(0, 100), st.sets(st.integers(0, 9))), max_size=10),
    st.sets(st.integers(0, 9)),
)
def test_the_most_lies_between_the_end_and_the_sum(
    drawn: list[tuple[int, set[int]]], kept: set[int]
) -> None:
    items = [
        Item(name=str(at), size_bytes=size, inputs=[str(n) for n in sorted(inputs) if n < at])
        for at, (size, inputs) in enumerate(drawn)
    ]
    wanted = [str(n) for n in kept]
    use = sum_disk(items, wanted)
    assert use.end_gc_bytes <= use.peak_gc_bytes <= use.total_bytes
    assert use.end_gc_bytes == sum(each.size_bytes for each in items if each.name in wanted)
