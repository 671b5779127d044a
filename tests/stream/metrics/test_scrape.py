"""A worker's metrics page is read as Prometheus would read it."""

from __future__ import annotations

import math

import pytest

from stream.metrics.scrape import ScrapedHistogram, parse

PAGE = """
# HELP emotrack_x_seconds Something.
# TYPE emotrack_x_seconds histogram
emotrack_x_seconds_bucket{le="0.01",stage="a"} 50.0
emotrack_x_seconds_bucket{le="0.1",stage="a"} 90.0
emotrack_x_seconds_bucket{le="+Inf",stage="a"} 100.0
emotrack_x_seconds_count{stage="a"} 100.0
emotrack_x_seconds_sum{stage="a"} 4.5
emotrack_outcomes_total{outcome="predicted"} 7.0
emotrack_outcomes_total{outcome="duplicate"} 2.0
emotrack_note_total{text="a \\"quoted\\" one"} 1.0
"""


def test_counters_are_summed_over_the_other_labels() -> None:
    page = parse(PAGE)
    assert page.value("emotrack_outcomes_total") == 9
    assert page.value("emotrack_outcomes_total", outcome="duplicate") == 2
    assert page.by_label("emotrack_outcomes_total", "outcome") == {"predicted": 7, "duplicate": 2}


def test_quantile_is_linear_inside_its_bucket() -> None:
    histogram = parse(PAGE).histogram("emotrack_x_seconds")
    assert histogram.quantile(0.25) == pytest.approx(0.005)
    assert histogram.quantile(0.7) == pytest.approx(0.01 + 0.09 * 0.5)
    assert histogram.quantile(0.99) == pytest.approx(0.1), "the open bucket has no upper bound"


def test_quantile_of_nothing_is_not_a_number() -> None:
    assert math.isnan(ScrapedHistogram({}, 0.0, 0.0).quantile(0.5))


def test_the_difference_of_two_scrapes_has_the_observations_between() -> None:
    histogram = parse(PAGE).histogram("emotrack_x_seconds")
    assert histogram.minus(histogram).count == 0
    assert histogram.minus(ScrapedHistogram({0.01: 50.0}, 0.1, 50.0)).buckets[0.01] == 0


def test_an_escaped_quote_stays_inside_its_label() -> None:
    assert parse(PAGE).value("emotrack_note_total", text='a "quoted" one') == 1
