"""Intervals over whole dialogues, of one model's scores and of the difference between two.

Utterances of one dialogue are not independent: intervals over utterances would be too narrow. Two
models are compared on the same resamples (paired): the difficulty of a dialogue cancels out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from model.scoring.answers import Answers
from model.scoring.calibrate import emotion_probabilities, stated_shifts
from model.scoring.scores import (
    Doubles,
    Ints,
    Tally,
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
LEAST_DIALOGUES: Final = 10  # of fewer, resamples are too much alike for an interval
SLICE_CELLS: Final = 2_000_000  # numbers of an array of resamples that is in memory at once

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
    classes, shifted, owner = answers.classes, answers.shifted, answers.pair_dialogue
    of_emotion, of_pairs = (accuracy, weighted_f1, macro_f1), (accuracy, weighted_f1)
    emotion = _counted(answers.labels, answers.guess, answers.dialogue, classes, drawn, of_emotion)
    pair = answers.shift.argmax(1)  # the head's answer: the map says how likely any shift is
    pairs = _counted(answers.shifts, pair, owner, classes * classes, drawn, of_pairs)
    stated = emotion_probabilities(answers.emotion, calibration).max(1)
    moved = stated_shifts(answers.shift, calibration)
    ranked = [
        (auroc(shifted, moved, weight), average_precision(shifted, moved, weight))
        for part in _slices(drawn, len(owner))
        for weight in [part[:, owner].astype(np.float64)]
    ]
    auroc_of, precision_of = map(np.concatenate, zip(*ranked, strict=True))
    return {
        "accuracy": emotion[0],
        "weighted_f1": emotion[1],
        "macro_f1": emotion[2],
        "shift_auroc": auroc_of,
        "shift_average_precision": precision_of,
        "shift_c2_weighted_f1": pairs[1],
        "shift_c2_accuracy": pairs[0],
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


def _counted(
    truth: Ints,
    guess: Ints,
    dialogue: Ints,
    classes: int,
    drawn: Ints,
    scores: Sequence[Callable[[Tally], Doubles]],
) -> list[Doubles]:
    """Compute scores of the counts of each class on each row of `drawn`, [1 + R] each."""
    right = truth == guess
    parts = []
    for part in _slices(drawn, max(classes, len(truth))):
        weight = part[:, dialogue]
        true, answered = _summed(weight, truth, classes), _summed(weight, guess, classes)
        counts = Tally(_summed(weight[:, right], truth[right], classes), true, answered)
        parts.append([of(counts) for of in scores])
    return [np.concatenate(score) for score in zip(*parts, strict=True)]


def _summed(weight: Ints, at: Ints, classes: int) -> Ints:
    """Sum the weights [r, N] of each class `at` [N]: [r, classes]."""
    sums = np.zeros((len(weight), classes), np.int64)
    if len(at):
        order = np.argsort(at, kind="stable")
        present, starts = np.unique(at[order], return_index=True)
        sums[:, present] = np.add.reduceat(weight[:, order], starts, axis=1)
    return sums


def _slices(drawn: Ints, width: int) -> Iterator[Ints]:
    """Cut resamples into slices of at most `SLICE_CELLS` numbers where each has `width`."""
    rows = max(1, SLICE_CELLS // max(1, width))
    yield from np.array_split(drawn, -(-len(drawn) // rows))
