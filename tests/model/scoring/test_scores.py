"""Scores against scikit-learn, alone and of many resamples at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from model.scoring.scores import (
    accuracy,
    auroc,
    average_precision,
    calibration_error,
    class_f1,
    macro_f1,
    tally,
    weighted_f1,
)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 8))
def test_f1_and_accuracy_are_scikit_learns(seed: int, rows: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    truth, guess = rng.integers(0, classes, (2, rows))
    counts = tally(truth, guess, classes)
    every = list(range(classes))
    theirs = metrics.f1_score(truth, guess, average="weighted", labels=every, zero_division=0)
    assert float(weighted_f1(counts)) == pytest.approx(theirs)
    np.testing.assert_allclose(
        class_f1(counts),
        metrics.f1_score(truth, guess, average=None, labels=every, zero_division=0),
    )
    occur = np.unique(truth)
    macro = metrics.f1_score(truth, guess, average="macro", labels=occur, zero_division=0)
    assert float(macro_f1(counts)) == pytest.approx(macro)
    assert float(accuracy(counts)) == pytest.approx(metrics.accuracy_score(truth, guess))


@given(st.integers(0, 2**32 - 1), st.integers(2, 60))
def test_auroc_and_average_precision_are_scikit_learns_with_ties(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(rows) < 0.5
    truth[:2] = (True, False)
    score = rng.integers(0, 10, rows) / 10  # many ties
    assert auroc(truth, score) == pytest.approx(metrics.roc_auc_score(truth, score))
    theirs = metrics.average_precision_score(truth, score)
    assert average_precision(truth, score) == pytest.approx(theirs)


@given(st.integers(0, 2**32 - 1))
def test_many_resamples_at_once_score_as_each_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, score = rng.random(20) < 0.5, rng.integers(0, 6, 20) / 6
    weight = rng.integers(0, 3, (5, 20)).astype(float)
    for measure in (auroc, average_precision):
        alone = [measure(truth, score, one) for one in weight]
        np.testing.assert_allclose(measure(truth, score, weight), alone)
    weight[0] = 1.0
    assert auroc(truth, score, weight)[0] == pytest.approx(float(auroc(truth, score)), nan_ok=True)


def test_a_weight_of_two_counts_a_row_twice() -> None:
    rng = np.random.default_rng(0)
    truth, score = rng.random(30) < 0.5, rng.random(30)
    twice = np.concatenate([np.arange(30), np.arange(10)])
    weight = np.where(np.arange(30) < 10, 2.0, 1.0)
    for measure in (auroc, average_precision):
        repeated = measure(truth[twice], score[twice])
        assert float(measure(truth, score, weight)) == pytest.approx(float(repeated))


def test_auroc_without_both_kinds_is_not_a_number() -> None:
    assert np.isnan(auroc(np.array([True, True]), np.array([0.1, 0.9])))
    assert np.isnan(average_precision(np.array([False]), np.array([0.1])))


def test_a_forecast_that_is_right_as_often_as_stated_has_no_calibration_error() -> None:
    stated = np.repeat(0.5, 1000)
    happened = np.arange(1000) % 2 == 0
    assert calibration_error(stated, happened) == pytest.approx(0.0)
    assert calibration_error(np.repeat(0.9, 1000), happened) == pytest.approx(0.4)
    assert calibration_error(np.repeat(1.0, 10), np.repeat(True, 10)) == pytest.approx(0.0)
