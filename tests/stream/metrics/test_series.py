"""Our series hold what those of Prometheus' own client would."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client import Histogram as TheirHistogram

from stream.metrics.series import BatchHistogram

BOUNDS = (0.5, 1.0, 2.0)


def histogram() -> BatchHistogram:
    return BatchHistogram("x", "X.", BOUNDS)


@given(st.lists(st.one_of(st.sampled_from(BOUNDS), st.floats(0, 4)), max_size=30))
def test_it_counts_every_value_where_the_prometheus_client_does(values: list[float]) -> None:
    registry = CollectorRegistry()
    theirs, ours = TheirHistogram("x", "X.", registry=registry, buckets=BOUNDS), histogram()
    for value in values:
        theirs.observe(value)
        ours.observe(value)
    counts, total = ours.read()
    expected = [registry.get_sample_value("x_bucket", {"le": le}) for le in ("0.5", "1.0", "2.0")]
    assert counts == [*expected, registry.get_sample_value("x_count")]
    assert total == registry.get_sample_value("x_sum")


def test_a_value_of_a_whole_batch_counts_once_for_each_utterance() -> None:
    once, often = histogram(), histogram()
    once.observe(0.75, 3)
    for _ in range(3):
        often.observe(0.75)
    assert once.read() == often.read() == ([0, 3, 3, 3], 2.25)


@given(st.lists(st.floats(0, 4), max_size=30))
def test_many_values_at_once_count_as_one_after_the_other(values: list[float]) -> None:
    at_once, in_turn = histogram(), histogram()
    at_once.observe_all(values)
    for value in values:
        in_turn.observe(value)
    (counts, total), (expected, sum_) = at_once.read(), in_turn.read()
    assert counts == expected
    assert total == pytest.approx(sum_)
