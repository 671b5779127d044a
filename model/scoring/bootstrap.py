"""Intervals over whole dialogues, of one model's scores and of the difference between two.

Utterances of one dialogue are not independent: intervals over utterances would be too narrow. Two
models are compared on the same resamples (paired): the difficulty of a dialogue cancels out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from model.scoring.answers import Answers
from model.scoring.calibrate import emotion_probabilities, stated_shifts
from model.scoring.scores import (
    Doubles,
    Ints,
    accuracy,
    auroc,
    average_precision,
    calibration_errors,
    macro_f1,
    weighted_f1,
)
from model.serving.calibration import Calibration

ScoreName = Literal[
    "accuracy",
    "weighted_f1",
    "macro_f1",
    "shift_auroc",
    "shift_average_precision",
    "shift_c2_weighted_f1",
    "shift_c2_accuracy",
    "emotion_ece",
    "shift_ece",
]
SCORES: Final[tuple[ScoreName, ...]] = get_args(ScoreName)
LESS_IS_BETTER: Final[frozenset[ScoreName]] = frozenset(("emotion_ece", "shift_ece"))
RESAMPLES: Final = 1000

Resampled = Mapping[ScoreName, Doubles]  # [1 + R]: on the split itself, then on each resample


@dataclass(frozen=True, slots=True)
class Interval:
    """A score with its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A score of one model minus that of another, over the same dialogues."""

    score: ScoreName
    one: float
    other: float
    value: float  # one - other
    low: float
    high: float
    share_not_above: float  # of the resamples in which one is not above the other

    @property
    def verdict(self) -> str:
        """The difference in words."""
        if np.isnan(self.value):
            return "cannot be compared"
        if not (self.low > 0 or self.high < 0):
            return "within noise"
        better = (self.value > 0) != (self.score in LESS_IS_BETTER)
        return "better" if better else "worse"


def dialogue_weights(dialogues: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Ints:
    """Return the count of each dialogue, [1 + resamples, dialogues]; the first row has each once.

    Equal arguments give equal draws: scores of two models on them can be compared pair by pair.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(dialogues, np.full(dialogues, 1 / dialogues), size=resamples)
    return np.concatenate((np.ones((1, dialogues), np.int64), drawn))


def resampled_scores(answers: Answers, calibration: Calibration, drawn: Ints) -> Resampled:
    """Compute every main score on each row of `drawn`."""
    classes, shifted = answers.classes, answers.shifted
    emotion = _confusions(answers.labels, answers.guess, answers.dialogue, classes, drawn)
    pair = answers.shift.argmax(1)  # the head's answer: the map says how likely any shift is
    pairs = _confusions(answers.shifts, pair, answers.pair_dialogue, classes * classes, drawn)
    stated = emotion_probabilities(answers.emotion, calibration).max(1)
    moved = stated_shifts(answers.shift, calibration)
    weight = drawn[:, answers.pair_dialogue].astype(np.float64)
    return {
        "accuracy": accuracy(emotion),
        "weighted_f1": weighted_f1(emotion),
        "macro_f1": macro_f1(emotion),
        "shift_auroc": auroc(shifted, moved, weight),
        "shift_average_precision": average_precision(shifted, moved, weight),
        "shift_c2_weighted_f1": weighted_f1(pairs),
        "shift_c2_accuracy": accuracy(pairs),
        "emotion_ece": calibration_errors(stated, answers.right, answers.dialogue, drawn),
        "shift_ece": calibration_errors(moved, shifted, answers.pair_dialogue, drawn),
    }


def interval(scores: Doubles) -> Interval:
    """Return scores[0] and the 95 % percentile interval of scores[1:]; NaN without a score."""
    known = scores[1:][~np.isnan(scores[1:])]
    low, high = np.percentile(known, [2.5, 97.5]) if len(known) else (np.nan, np.nan)
    return Interval(float(scores[0]), float(low), float(high))


def differences(one: Resampled, other: Resampled) -> tuple[Difference, ...]:
    """Return `one` minus `other`, score by score, both on the same draws of the same dialogues."""
    found = []
    for name in SCORES:
        gap = one[name] - other[name]
        middle = interval(gap)
        known = gap[1:][~np.isnan(gap[1:])]
        not_above = float((known <= 0).mean()) if len(known) else float("nan")
        first, second = float(one[name][0]), float(other[name][0])
        ends = middle.value, middle.low, middle.high
        found.append(Difference(name, first, second, *ends, not_above))
    return tuple(found)


def _confusions(truth: Ints, guess: Ints, dialogue: Ints, classes: int, drawn: Ints) -> Ints:
    """Count confusions of each resample, [R, C, C], as one matrix product."""
    cells = classes * classes
    flat = dialogue * cells + truth * classes + guess
    per = np.bincount(flat, minlength=drawn.shape[1] * cells).reshape(-1, cells)
    used = np.flatnonzero(per.any(0))  # C² pairs have C⁴ cells, nearly all of them empty
    counts = np.zeros((len(drawn), cells))
    counts[:, used] = drawn.astype(np.float64) @ per[:, used].astype(np.float64)
    return counts.astype(np.int64).reshape(-1, classes, classes)
