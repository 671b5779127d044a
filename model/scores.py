"""How good predictions are: F1, AUROC, calibration error, and intervals over whole dialogues.

Pure numpy on labels and probabilities. Confidence intervals resample *dialogues*: utterances of one
dialogue are not independent, and intervals over utterances would be too narrow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]

ECE_BINS: Final = 15


@dataclass(frozen=True, slots=True)
class Interval:
    """A score with its bootstrap interval."""

    value: float
    low: float
    high: float


def confusion(truth: Ints, guess: Ints, classes: int) -> Ints:
    """Counts [C, C], row the true class, column the predicted one."""
    cells = np.bincount(truth * classes + guess, minlength=classes * classes)
    return cells.reshape(classes, classes).astype(np.int64)


def class_f1(counts: NDArray[np.int64] | Doubles) -> Doubles:
    """F1 of each class from confusion counts [..., C, C]; 0 where a class never occurs."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    either = counts.sum(-1) + counts.sum(-2)
    f1: Doubles = np.divide(2 * hits, either, out=np.zeros_like(hits), where=either > 0)
    return f1


def weighted_f1(counts: NDArray[np.int64] | Doubles) -> Doubles:
    """Mean of the class F1s weighted by how often a class is true, over [..., C, C]."""
    support = counts.sum(-1).astype(np.float64)
    total = support.sum(-1)
    weighted: Doubles = (class_f1(counts) * support).sum(-1) / np.maximum(total, 1)
    return weighted


def accuracy(counts: NDArray[np.int64]) -> float:
    """Share of correct predictions; 0 where there are none."""
    return float(np.trace(counts) / max(1, counts.sum()))


def auroc(truth: NDArray[np.bool_], score: Doubles, weight: Doubles | None = None) -> float:
    """Chance that a positive scores above a negative, ties counting half; NaN without both."""
    weight = np.ones(len(score)) if weight is None else weight
    _, at = np.unique(score, return_inverse=True)
    positive = np.bincount(at, weight * truth)
    negative = np.bincount(at, weight * ~truth)
    pairs = positive.sum() * negative.sum()
    below = np.cumsum(negative) - negative / 2
    return float((positive * below).sum() / pairs) if pairs > 0 else float("nan")


def average_precision(truth: NDArray[np.bool_], score: Doubles) -> float:
    """Area under precision over recall, as steps; NaN without a positive."""
    if not truth.any():
        return float("nan")
    values, at = np.unique(-score, return_inverse=True)
    hits = np.cumsum(np.bincount(at, truth, minlength=len(values)))
    said = np.cumsum(np.bincount(at, minlength=len(values)))
    recall = np.concatenate(([0.0], hits / hits[-1]))
    return float((np.diff(recall) * hits / said).sum())


def calibration_error(probability: Doubles, happened: NDArray[np.bool_]) -> float:
    """Expected calibration error: mean |stated - observed| over 15 equal bins of probability."""
    if len(probability) == 0:
        return float("nan")
    bins = np.minimum((probability * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    stated = np.bincount(bins, probability, minlength=ECE_BINS)
    observed = np.bincount(bins, happened, minlength=ECE_BINS)
    return float(np.abs(stated - observed).sum() / len(probability))


def dialogue_weights(dialogues: int, *, resamples: int, seed: int) -> Ints:
    """How often each dialogue is drawn in each resample, [resamples, dialogues]."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(dialogues, np.full(dialogues, 1 / dialogues), size=resamples)


def interval(value: float, resampled: Doubles) -> Interval:
    """The 95 % percentile interval of `resampled` round `value`."""
    low, high = np.nanpercentile(resampled, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def bootstrap_weighted_f1(
    truth: Ints, guess: Ints, dialogue: Ints, classes: int, drawn: Ints
) -> Interval:
    """Weighted F1 with its interval over dialogues; `dialogue` [N] numbers each row's dialogue."""
    cells = classes * classes
    flat = dialogue * cells + truth * classes + guess
    per = np.bincount(flat, minlength=drawn.shape[1] * cells).reshape(-1, cells)
    resampled = (drawn @ per).reshape(-1, classes, classes)
    return interval(float(weighted_f1(per.sum(0).reshape(classes, classes))),
                    weighted_f1(resampled))  # fmt: skip


def bootstrap(score: Callable[[Doubles], float], dialogue: Ints, drawn: Ints) -> Interval:
    """A weighted score with its interval over dialogues; `score` takes one weight a row."""
    resampled = np.array([score(weights[dialogue].astype(np.float64)) for weights in drawn])
    return interval(score(np.ones(len(dialogue))), resampled)
