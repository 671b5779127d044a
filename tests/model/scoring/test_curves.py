"""Curves: values by hand on few rows, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from model.scoring.curves import calibration_floor, reliability, risk_coverage, thresholds


def test_reliability_bins_count_stated_and_observed() -> None:
    stated = np.array([0.62, 0.64, 0.95, 1.0])
    happened = np.array([True, False, True, True])
    found = reliability(stated, happened)
    used = {i: b for i, b in enumerate(found.bins) if b.count}
    assert {i: b.count for i, b in used.items()} == {9: 2, 14: 2}
    assert (used[9].low, used[9].high) == pytest.approx((9 / 15, 10 / 15))
    assert (used[9].stated, used[9].observed) == pytest.approx((0.63, 0.5))
    assert (used[14].stated, used[14].observed) == pytest.approx((0.975, 1.0))
    assert found.ece == pytest.approx(0.5 * 0.13 + 0.5 * 0.025)
    assert np.isnan(found.bins[0].stated)


def test_the_floor_is_the_error_of_perfectly_calibrated_answers() -> None:
    """And falls as the root of their number."""
    rng = np.random.default_rng(0)
    stated = rng.uniform(0.2, 1, 1200)
    drawn = [reliability(stated, rng.random(1200) < stated).ece for _ in range(60)]
    floor = calibration_floor(stated)
    assert floor == pytest.approx(np.mean(drawn), rel=0.1)
    assert calibration_floor(np.tile(stated, 4)) == pytest.approx(floor / 2, rel=0.1)
    assert floor == calibration_floor(stated)  # one number for one set of answers


def test_the_surest_are_answered_first() -> None:
    found = risk_coverage(np.array([0.5, 0.9, 0.7, 0.6]), np.array([False, True, False, True]))
    np.testing.assert_allclose(found.coverage, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(found.accuracy, [1.0, 0.5, 2 / 3, 0.5])
    assert found.area == pytest.approx((0 + 0.5 + 1 / 3 + 0.5) / 4)


def test_equally_sure_answers_have_no_order() -> None:
    found = risk_coverage(np.repeat(0.4, 4), np.array([True, True, False, False]))
    np.testing.assert_allclose(found.accuracy, [0.5, 0.5, 0.5, 0.5])


@given(st.integers(0, 2**32 - 1), st.integers(2, 50))
def test_threshold_curves_are_scikit_learns(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(rows) < 0.5
    truth[:2] = (True, False)
    score = rng.integers(0, 8, rows) / 8
    found = thresholds(truth, score)
    false_rate, recall, at = metrics.roc_curve(truth, score, drop_intermediate=False)
    np.testing.assert_allclose(found.false_rate, false_rate)
    np.testing.assert_allclose(found.recall, recall)
    np.testing.assert_allclose(found.threshold, at)
    precision, _, _ = metrics.precision_recall_curve(truth, score)
    np.testing.assert_allclose(found.precision[1:], precision[:-1][::-1])
    assert metrics.auc(found.false_rate, found.recall) == pytest.approx(
        metrics.roc_auc_score(truth, score)
    )


def test_a_curve_of_no_pairs_is_one_point() -> None:
    found = thresholds(np.empty(0, np.bool_), np.empty(0))
    assert (found.recall.tolist(), found.precision.tolist()) == ([0.0], [1.0])
