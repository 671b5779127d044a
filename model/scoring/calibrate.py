"""From logits to stated probabilities, and the thresholds chosen with them, all on dev.

J. Platt, Probabilistic outputs for support vector machines (1999): the map of a confidence.
M. Kull, T. Silva Filho, P. Flach, Beta calibration (2017): the map of a shift's probability.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import numpy as np

from model.scoring.answers import Answers
from model.scoring.scores import Bools, Doubles, Ints, calibration_error, is_shift
from model.serving.calibration import Calibration, Thresholds

FALSE_ALARMS_PER_100: Final = 5.0  # budget of the built-in alert rule, per 100 pairs of dev
RIDGE: Final = 3.0  # on the confidence map, in answers
SHIFT_RIDGE: Final = 0.3  # on the beta map, in pairs
COMMON_RIDGE: Final = 0.1  # only for a set on which all answers are right
LEAST_SLOPE: Final = 0.1
FIXED: Final = 1e9  # a ridge that fixes its weight
NEWTON_STEPS: Final = 25
LEAST_SHIFTS: Final = 20  # with fewer on dev, a threshold chosen there is a guess
ABSTAIN_SHARE: Final = 0.05  # of the dev utterances: answered "not sure"
SLICE_CELLS: Final = 1_000_000  # logits that are in memory several times over at once
_GOLDEN: Final = (math.sqrt(5) - 1) / 2


def softmax(logits: Doubles, temperature: float = 1.0) -> Doubles:
    """Return probabilities over the last axis."""
    scaled = logits / temperature
    scaled = scaled - scaled.max(-1, keepdims=True)
    exp = np.exp(scaled)
    probability: Doubles = exp / exp.sum(-1, keepdims=True)
    return probability


def emotion_probabilities(logits: Doubles, calibration: Calibration) -> Doubles:
    """Return a worker's stated probabilities of emotion logits: [N, C] -> [N, C]."""
    softened = softmax(logits, calibration.emotion)
    stated: Doubles = np.array([calibration.stated(row) for row in softened.tolist()])
    return stated.reshape(logits.shape)


def shift_cells(logits: Doubles, calibration: Calibration) -> Doubles:
    """Return its stated (from, to) probabilities of shift logits: [P, C * C] -> [P, C * C]."""

    def cells(part: Doubles) -> Doubles:
        softened = softmax(part, calibration.shift).tolist()
        return np.array([calibration.stated_shift(row)[0] for row in softened]).reshape(part.shape)

    return _in_slices(cells, logits)


def stated_shifts(logits: Doubles, calibration: Calibration) -> Doubles:
    """Return its stated probability of a shift: [P, C * C] -> [P]."""

    def shifts(part: Doubles) -> Doubles:
        softened = softmax(part, calibration.shift).tolist()
        return np.array([calibration.stated_shift(row)[1] for row in softened])

    return _in_slices(shifts, logits)


def shift_probability(logits: Doubles, classes: int, temperature: float = 1.0) -> Doubles:
    """Return 1 - trace of the (from, to) matrix of each pair: [P, C * C] -> [P]."""
    diagonal = np.arange(classes) * (classes + 1)
    stays = _in_slices(lambda part: softmax(part, temperature)[:, diagonal].sum(1), logits)
    shifts: Doubles = np.clip(1.0 - stays, 0.0, 1.0)
    return shifts


def _in_slices(of: Callable[[Doubles], Doubles], logits: Doubles) -> Doubles:
    """Apply a function of rows to a slice of them at a time: C * C logits a pair can be many."""
    return np.concatenate([of(logits[part]) for part in _slices(logits)])


def _slices(logits: Doubles) -> list[slice]:
    """Cut rows into slices of at most `SLICE_CELLS` numbers; one at least."""
    rows = max(1, SLICE_CELLS // max(1, logits.shape[1]))
    return [slice(start, start + rows) for start in range(0, max(1, len(logits)), rows)]


def fitted_temperature(logits: Doubles, labels: Ints) -> float:
    """Return the temperature with the least negative log-likelihood of `labels`."""

    def loss(log_temperature: float) -> float:
        temperature, softened = math.exp(log_temperature), []
        for part in _slices(logits):
            true = labels[part]
            softened.append(softmax(logits[part], temperature)[np.arange(len(true)), true])
        p = np.concatenate(softened)
        return float(-np.log(np.maximum(p, 1e-12)).mean())

    low, high = math.log(0.1), math.log(10.0)
    for _ in range(40):  # golden section
        c, d = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if loss(c) < loss(d):
            high = d
        else:
            low = c
    return math.exp((low + high) / 2)


def emotion_calibration(logits: Doubles, labels: Ints) -> Calibration:
    """Fit the temperature, then the map of the answer's confidence to *right or not*.

    The offset of a class is a common one plus its own, which `RIDGE` draws to 0: a class that is
    rarely answered stays near the others, one never answered is in their middle.
    """
    temperature = fitted_temperature(logits, labels)
    softened = softmax(logits, temperature)
    answer, top = softened.argmax(1), np.clip(softened.max(1), 1e-9, 1 - 1e-9)
    odds = np.log(top / (1 - top))
    classes = logits.shape[1]
    rows = np.column_stack((odds, np.ones(len(odds)), np.eye(classes)[answer]))  # [N, 2 + C]
    towards = np.r_[1.0, np.zeros(1 + classes)]
    ridge = np.r_[RIDGE, COMMON_RIDGE, np.full(classes, RIDGE)]
    weight = _logistic(rows, answer == labels, towards, ridge)
    slope = max(float(weight[0]), LEAST_SLOPE)
    offsets = (weight[1] + weight[2:]).tolist()
    return Calibration(emotion=temperature, slope=slope, offsets=tuple(offsets))


def _logistic(rows: Doubles, happened: Bools, towards: Doubles, ridge: Doubles) -> Doubles:
    """Fit a logistic regression by Newton's steps; `ridge` draws its weights `towards` others.

    A step that overshoots is halved until the loss falls, so the weights always converge.
    """
    sign = np.where(happened, 1.0, -1.0)

    def loss(weight: Doubles) -> float:
        missed = np.logaddexp(0.0, -sign * (rows @ weight)).sum()
        return float(missed + 0.5 * (ridge * (weight - towards) ** 2).sum())

    weight = towards.copy()
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-np.clip(rows @ weight, -30, 30)))
        gradient = rows.T @ (p - happened) + ridge * (weight - towards)
        curve = (rows * (p * (1 - p))[:, None]).T @ rows + np.diag(ridge)
        step = np.linalg.solve(curve, gradient)
        while np.abs(step).max() > 1e-10 and loss(weight - step) > loss(weight):
            step = step / 2
        weight = weight - step
    return weight


def shift_calibration(logits: Doubles, shifts: Ints, classes: int) -> Calibration:
    """Fit the temperature of the (from, to) matrix, then the beta map of its 1 - trace.

    The temperature is that of all C * C cells, so that each cell is calibrated too. The emotion's
    fields keep their defaults.
    """
    temperature = fitted_temperature(logits, shifts)
    stated = shift_probability(logits, classes, temperature)
    return Calibration(shift=temperature, shift_map=beta_map(stated, is_shift(shifts, classes)))


def beta_map(probability: Doubles, happened: Bools) -> tuple[float, float, float]:
    """Return a, b, c of the beta map with the least loss; a and b > 0, so that no order changes.

    `SHIFT_RIDGE` draws it a little to the identity.
    """
    p = np.clip(probability, 1e-6, 1 - 1e-6)
    rows = np.column_stack((np.log(p), -np.log1p(-p), np.ones(len(p))))
    towards, ridge = np.array([1.0, 1.0, 0.0]), np.array([SHIFT_RIDGE, SHIFT_RIDGE, COMMON_RIDGE])
    weight = _logistic(rows, happened, towards, ridge)
    free = np.array([True, True, False])  # slopes that are not fixed at the least one yet
    while (low := free & (weight < LEAST_SLOPE)).any():
        free &= ~low
        towards, ridge = np.where(low, LEAST_SLOPE, towards), np.where(low, FIXED, ridge)
        weight = _logistic(rows, happened, towards, ridge)
    a, b, c = weight.tolist()
    return a, b, c


def operating_point(probability: Doubles, shifted: Bools, false_alarms_per_100: float) -> float:
    """Return the lowest threshold with at most that many false alarms per 100 pairs."""
    allowed = math.floor(false_alarms_per_100 / 100 * len(probability))
    wrong = np.sort(probability[~shifted])[::-1]
    if len(wrong) <= allowed:
        return 0.0
    # the first false alarm beyond the budget must stay under the threshold
    return float(np.nextafter(wrong[allowed], np.inf))


def out_of_fold_errors(answers: Answers, *, folds: int = 5) -> tuple[float, float]:
    """Return the ECE of emotion and of shift with calibrations fitted on the other folds.

    Folds are of whole dialogues: an estimate of the errors on a new split. NaN without two
    dialogues to split.
    """
    if answers.dialogues < 2:
        return float("nan"), float("nan")
    fold = np.random.default_rng(0).permutation(answers.dialogues) % folds
    own, pair = fold[answers.dialogue], fold[answers.pair_dialogue]
    stated, moved = np.zeros(len(own)), np.zeros(len(pair))
    for k in range(folds):
        out, rest = own == k, own != k
        if out.any() and rest.any():
            fitted = emotion_calibration(answers.emotion[rest], answers.labels[rest])
            stated[out] = emotion_probabilities(answers.emotion[out], fitted).max(1)
        out, rest = pair == k, pair != k
        if out.any() and rest.any():
            fitted = shift_calibration(answers.shift[rest], answers.shifts[rest], answers.classes)
            moved[out] = stated_shifts(answers.shift[out], fitted)
    return calibration_error(stated, answers.right), calibration_error(moved, answers.shifted)


def calibrate(
    emotion_logits: Doubles, labels: Ints, shift_logits: Doubles, shifts: Ints, classes: int
) -> tuple[Calibration, Thresholds]:
    """Fit temperatures, maps and thresholds on dev's logits and labels.

    Logits are [N, C] and [P, C * C]. The rule alerts as `alert_points` says; it abstains on the
    least sure `ABSTAIN_SHARE` of dev.
    """
    fitted = replace(emotion_calibration(emotion_logits, labels), fitted_on="dev")
    confidence = emotion_probabilities(emotion_logits, fitted).max(1)
    abstain = float(np.quantile(confidence, ABSTAIN_SHARE))
    if len(shifts) == 0:
        return fitted, Thresholds(abstain)
    moved = shift_calibration(shift_logits, shifts, classes)
    stated, shifted = stated_shifts(shift_logits, moved), is_shift(shifts, classes)
    thresholds = Thresholds(abstain, *alert_points(stated, shifted, FALSE_ALARMS_PER_100))
    return replace(fitted, shift=moved.shift, shift_map=moved.shift_map), thresholds


def alert_points(
    stated: Doubles, shifted: Bools, false_alarms_per_100: float
) -> tuple[float, float]:
    """Return the probability from which the rule alerts, and that below which it re-arms.

    It alerts where these pairs show at most that many false alarms per 100 and re-arms under the
    point of twice the budget. Where fewer than `LEAST_SHIFTS` of them shift, both are the defaults
    of `Thresholds`: no choice could be told from chance.
    """
    if shifted.sum() < LEAST_SHIFTS:
        return Thresholds().shift, Thresholds().shift_exit
    enter = operating_point(stated, shifted, false_alarms_per_100)
    leave = operating_point(stated, shifted, 2 * false_alarms_per_100)
    return enter, min(leave, 0.95 * enter)
