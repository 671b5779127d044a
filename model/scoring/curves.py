"""Scores that are curves: reliability, accuracy against share answered, ROC, precision-recall.

Pure numpy. A point of a curve is never drawn inside a group of equal scores: no threshold could
split it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from model.scoring.scores import ECE_BINS, Bools, Doubles, calibration_error, ece_bins

FLOOR_DRAWS: Final = 500


@dataclass(frozen=True, slots=True)
class Bin:
    """Probabilities stated between `low` and `high`, and the share that happened."""

    low: float
    high: float
    count: int
    stated: float  # mean of the stated probabilities, NaN in an empty bin
    observed: float  # share that happened, likewise


@dataclass(frozen=True, slots=True)
class Reliability:
    """Stated against observed."""

    bins: tuple[Bin, ...]
    ece: float
    floor: float  # the ECE that chance alone would give perfectly calibrated answers of this number


@dataclass(frozen=True, slots=True)
class RiskCoverage:
    """Accuracy of the surest answers, by the share of utterances that is answered."""

    coverage: Doubles  # [N] 1 / N ... 1
    accuracy: Doubles  # [N]
    area: float  # AURC: mean error over all shares; less is better


@dataclass(frozen=True, slots=True)
class Threshold:
    """A binary decision at each possible threshold, strictest first; all [K]."""

    threshold: Doubles
    recall: Doubles  # true positive rate
    false_rate: Doubles  # false positive rate
    precision: Doubles


def reliability(probability: Doubles, happened: Bools) -> Reliability:
    """Bin stated against observed; with the calibration error and its noise floor."""
    at = ece_bins(probability)
    count = np.bincount(at, minlength=ECE_BINS)
    stated = np.bincount(at, probability, minlength=ECE_BINS) / np.where(count, count, np.nan)
    observed = np.bincount(at, happened, minlength=ECE_BINS) / np.where(count, count, np.nan)
    bins = tuple(
        Bin(i / ECE_BINS, (i + 1) / ECE_BINS, int(count[i]), float(stated[i]), float(observed[i]))
        for i in range(ECE_BINS)
    )
    error = calibration_error(probability, happened)
    return Reliability(bins, error, calibration_floor(probability))


def calibration_floor(probability: Doubles) -> float:
    """Return the mean ECE if all happened exactly as often as stated, rows independent.

    Rows of one dialogue are not, so the true floor is somewhat higher.
    """
    rng = np.random.default_rng(0)
    draws = [
        calibration_error(probability, rng.random(len(probability)) < probability)
        for _ in range(FLOOR_DRAWS)
    ]
    return float(np.mean(draws))


def risk_coverage(confidence: Doubles, right: Bools) -> RiskCoverage:
    """Answer the surest first; those equally sure have no order: their mean counts for each."""
    n = len(confidence)
    order = np.argsort(-confidence, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(confidence[order])) + 1, n)
    hits = np.cumsum(right[order])[ends - 1]
    answered = np.arange(1, n + 1)
    share: Doubles = np.interp(answered, np.append(0, ends), np.append(0, hits)) / answered
    return RiskCoverage(answered / n, share, float((1 - share).mean()))


def thresholds(truth: Bools, score: Doubles) -> Threshold:
    """Score the decision `score >= threshold`, from no positive answer to all."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])) + 1, len(score))
    ends = ends[ends > 0]
    hits = np.append(0, np.cumsum(truth[order])[ends - 1])
    positive = np.append(0, ends)  # answers
    positives, negatives = max(1, int(truth.sum())), max(1, int((~truth).sum()))
    first = hits[1] / positive[1] if len(ends) else 1.0  # of no answer: that of the first step
    precision = np.append(first, hits[1:] / positive[1:])
    at = np.append(np.inf, score[order][ends - 1])
    return Threshold(at, hits / positives, (positive - hits) / negatives, precision)
