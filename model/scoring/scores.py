"""Scores of predictions: F1, AUROC, average precision, calibration error.

Pure numpy on labels and probabilities. A leading `...` scores many resamples at once.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]
Counts = Ints | Doubles

ECE_BINS: Final = 15


class Tally(NamedTuple):
    """Counts of each class, all [..., C]: rightly answered, true, answered.

    F1 and accuracy need no more of a confusion matrix, and C * C pairs of C emotions would have one
    of C to the fourth.
    """

    hits: Counts
    true: Counts
    answered: Counts


def tally(truth: Ints, guess: Ints, classes: int) -> Tally:
    """Count each class, [C]."""
    rows = (truth[truth == guess], truth, guess)
    return Tally(*(np.bincount(row, minlength=classes) for row in rows))


def confusion(truth: Ints, guess: Ints, classes: int) -> Ints:
    """Return counts [C, C], row the true class, column the predicted one."""
    cells = np.bincount(truth * classes + guess, minlength=classes * classes)
    return cells.reshape(classes, classes).astype(np.int64)


def is_shift(pairs: Ints, classes: int) -> Bools:
    """Return True where a pair's two emotions differ; a pair is from * C + to, [P]."""
    moved: Bools = pairs // classes != pairs % classes
    return moved


def class_f1(counts: Tally) -> Doubles:
    """Return F1 of each class, [..., C]; 0 where a class never occurs."""
    return _share(2 * counts.hits, counts.true + counts.answered)


def weighted_f1(counts: Tally) -> Doubles:
    """Return the mean class F1 weighted by a class's true count, [...]."""
    support = counts.true.astype(np.float64)
    return _share((class_f1(counts) * support).sum(-1), support.sum(-1))


def macro_f1(counts: Tally) -> Doubles:
    """Return the plain mean F1 of the classes that occur, [...]."""
    occurs = counts.true > 0
    return _share((class_f1(counts) * occurs).sum(-1), occurs.sum(-1))


def accuracy(counts: Tally) -> Doubles:
    """Return the share of correct predictions, [...]; 0 without any prediction."""
    return _share(counts.hits.sum(-1), counts.true.sum(-1))


def auroc(truth: Bools, score: Doubles, weight: Doubles | None = None) -> Doubles:
    """Return the chance that a positive scores above a negative, ties half; NaN without both.

    `weight` [..., P] counts each row that often, one score for each leading index.
    """
    positive, negative = _by_score(truth, score, weight)
    below = np.cumsum(negative, -1) - negative / 2
    pairs = positive.sum(-1) * negative.sum(-1)
    return _share((positive * below).sum(-1), pairs, nothing=np.nan)


def average_precision(truth: Bools, score: Doubles, weight: Doubles | None = None) -> Doubles:
    """Return the area under precision over recall, as steps; NaN without a positive."""
    positive, negative = _by_score(truth, -score, weight)
    hits = np.cumsum(positive, -1)
    precision = _share(hits, hits + np.cumsum(negative, -1))
    return _share((positive * precision).sum(-1), positive.sum(-1), nothing=np.nan)


def ece_bins(probability: Doubles) -> Ints:
    """Return the bin of each probability, of `ECE_BINS` equally wide ones."""
    return np.minimum((probability * ECE_BINS).astype(np.int64), ECE_BINS - 1)


def calibration_error(probability: Doubles, happened: Bools) -> float:
    """Return the expected calibration error: mean |stated - observed| over `ECE_BINS` bins."""
    every = np.zeros(len(probability), np.int64)
    return float(calibration_errors(probability, happened, every, np.ones((1, 1), np.int64))[0])


def calibration_errors(
    probability: Doubles, happened: Bools, dialogue: Ints, drawn: Ints
) -> Doubles:
    """Return the `calibration_error` of each resample of dialogues, [R]; NaN without a row."""
    at = dialogue * ECE_BINS + ece_bins(probability)
    size = drawn.shape[1]
    gap = np.bincount(at, probability - happened, minlength=size * ECE_BINS)
    rows = drawn @ np.bincount(dialogue, minlength=size)
    return _share(np.abs(drawn @ gap.reshape(size, ECE_BINS)).sum(1), rows, nothing=np.nan)


def _share(part: Counts, whole: Counts, nothing: float = 0.0) -> Doubles:
    """Return part / whole, and `nothing` where whole is 0."""
    part = np.asarray(part, np.float64)
    out: Doubles = np.divide(part, whole, out=np.full_like(part, nothing), where=whole > 0)
    return out


def _by_score(truth: Bools, score: Doubles, weight: Doubles | None) -> tuple[Doubles, Doubles]:
    """Sum the weights of positives and of negatives at each different score, lowest first."""
    weight = np.ones(len(score)) if weight is None else weight
    if len(score) == 0:
        return weight, weight
    order = np.argsort(score, kind="stable")
    truth, ordered, weight = truth[order], score[order], weight[..., order]
    starts = np.concatenate(([0], np.flatnonzero(np.diff(ordered)) + 1))
    positive: Doubles = np.add.reduceat(weight * truth, starts, axis=-1)
    negative: Doubles = np.add.reduceat(weight * ~truth, starts, axis=-1)
    return positive, negative
