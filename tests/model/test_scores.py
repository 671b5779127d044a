"""Scores against scikit-learn, and what the intervals must do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from model.scores import (
    accuracy,
    auroc,
    average_precision,
    bootstrap,
    bootstrap_weighted_f1,
    calibration_error,
    class_f1,
    confusion,
    dialogue_weights,
    weighted_f1,
)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(2, 8))
def test_f1_and_accuracy_are_scikit_learns(seed: int, rows: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    truth, guess = rng.integers(0, classes, (2, rows))
    counts = confusion(truth, guess, classes)
    every = list(range(classes))
    theirs = metrics.f1_score(truth, guess, average="weighted", labels=every, zero_division=0)
    assert float(weighted_f1(counts)) == pytest.approx(theirs)
    np.testing.assert_allclose(
        class_f1(counts),
        metrics.f1_score(truth, guess, average=None, labels=every, zero_division=0),
    )
    assert accuracy(counts) == pytest.approx(metrics.accuracy_score(truth, guess))


@given(st.integers(0, 2**32 - 1), st.integers(2, 60))
def test_auroc_and_average_precision_are_scikit_learns_with_ties(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.random(rows) < 0.5
    truth[:2] = (True, False)
    score = rng.integers(0, 10, rows) / 10  # many ties
    assert auroc(truth, score) == pytest.approx(metrics.roc_auc_score(truth, score))
    theirs = metrics.average_precision_score(truth, score)
    assert average_precision(truth, score) == pytest.approx(theirs)


def test_a_weight_of_two_counts_a_row_twice() -> None:
    rng = np.random.default_rng(0)
    truth, score = rng.random(30) < 0.5, rng.random(30)
    twice = np.concatenate([np.arange(30), np.arange(10)])
    weight = np.where(np.arange(30) < 10, 2.0, 1.0)
    assert auroc(truth, score, weight) == pytest.approx(auroc(truth[twice], score[twice]))


def test_auroc_without_both_kinds_is_not_a_number() -> None:
    assert np.isnan(auroc(np.array([True, True]), np.array([0.1, 0.9])))
    assert np.isnan(average_precision(np.array([False]), np.array([0.1])))


def test_a_forecast_that_is_right_as_often_as_it_says_has_no_calibration_error() -> None:
    stated = np.repeat(0.5, 1000)
    happened = np.arange(1000) % 2 == 0
    assert calibration_error(stated, happened) == pytest.approx(0.0)
    assert calibration_error(np.repeat(0.9, 1000), happened) == pytest.approx(0.4)
    assert calibration_error(np.repeat(1.0, 10), np.repeat(True, 10)) == pytest.approx(0.0)


def test_the_interval_resamples_whole_dialogues() -> None:
    """Ten rows that always agree within a dialogue are one observation, not ten."""
    rng = np.random.default_rng(1)
    right = rng.random(40) < 0.6  # per dialogue
    dialogue = np.repeat(np.arange(40), 10)
    truth = np.zeros(400, np.int64)
    guess = np.where(np.repeat(right, 10), 0, 1)
    drawn = dialogue_weights(40, resamples=2000, seed=0)
    by_dialogue = bootstrap_weighted_f1(truth, guess, dialogue, 2, drawn)
    alone = bootstrap_weighted_f1(
        truth, guess, np.arange(400), 2, dialogue_weights(400, resamples=2000, seed=0)
    )
    assert by_dialogue.low < by_dialogue.value < by_dialogue.high
    wide, narrow = (i.high - i.low for i in (by_dialogue, alone))
    assert 2 < wide / narrow < 5  # sqrt(10) = 3.2


def test_the_fast_f1_bootstrap_equals_scoring_each_resample() -> None:
    rng = np.random.default_rng(2)
    dialogue = np.sort(rng.integers(0, 8, 100))
    truth, guess = rng.integers(0, 3, (2, 100))
    drawn = dialogue_weights(8, resamples=50, seed=5)

    def score(weight: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
        rows = np.repeat(np.arange(100), weight.astype(int))
        return float(weighted_f1(confusion(truth[rows], guess[rows], 3)))

    slow = bootstrap(score, dialogue, drawn)
    fast = bootstrap_weighted_f1(truth, guess, dialogue, 3, drawn)
    assert (fast.value, fast.low, fast.high) == pytest.approx((slow.value, slow.low, slow.high))
