"""Only what is finished without a hole before it may be committed."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from stream.worker.partitions import Watermark


@given(st.sets(st.integers(0, 200), min_size=1, max_size=40), st.randoms(use_true_random=False))
def test_the_committable_offset_never_passes_an_unfinished_record(
    offsets: set[int], random: Random
) -> None:
    admitted = sorted(offsets)
    order = list(admitted)
    random.shuffle(order)
    mark = Watermark()
    for offset in admitted:
        mark.admit(offset)
    counted: list[str] = []
    for n, offset in enumerate(order, start=1):
        mark.finish(offset, f"o{offset}")
        open_ones = set(admitted) - set(order[:n])
        at = mark.committable()
        if at is not None:
            assert all(o >= at for o in open_ones)
            counted += mark.confirm(at)
            assert mark.committable() is None
        done = [o for o in admitted if not open_ones or o < min(open_ones)]
        assert counted == [f"o{o}" for o in done]
    assert len(counted) == len(admitted)


def test_a_commit_that_lags_behind_counts_only_what_it_covers() -> None:
    mark = Watermark()
    for offset in (3, 5, 9):
        mark.admit(offset)
        mark.finish(offset, "predicted")
    assert mark.confirm(4) == ["predicted"]
    assert mark.committable() == 10
    assert mark.confirm(10) == ["predicted", "predicted"]


def test_a_record_of_a_dropped_partition_is_ignored() -> None:
    mark = Watermark()
    mark.finish(7, "predicted")
    mark.admit(7)
    assert mark.committable() is None


def test_what_was_read_is_counted_apart_from_its_outcomes() -> None:
    """The two counts meet only where every record read got an outcome."""
    mark = Watermark()
    for offset in (3, 5, 9):
        mark.admit(offset)
    assert mark.waiting == 3
    mark.finish(3, "predicted")
    mark.finish(9, "predicted")
    assert mark.waiting == 2, "what waits for an earlier record is not answered yet"
    assert mark.read_below(9) == 2
    assert mark.confirm(9) == ["predicted"]
    assert mark.read_below(9) == 0, "each record counts once"
