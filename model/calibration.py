"""From logits to stated probabilities, and the thresholds chosen with them, all on dev."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.answers import Answers
from model.checkpoint import Calibration, Thresholds
from model.scores import Doubles, Ints, calibration_error

FALSE_ALARMS_PER_100: Final = 5.0  # budget of the built-in alert rule, per 100 pairs of dev
ABSTAIN_SHARE: Final = 0.05  # of the dev utterances are answered "not sure"
_GOLDEN: Final = (math.sqrt(5) - 1) / 2


def softmax(logits: Doubles, temperature: float = 1.0) -> Doubles:
    """Probabilities over the last axis."""
    scaled = logits / temperature
    scaled = scaled - scaled.max(-1, keepdims=True)
    exp = np.exp(scaled)
    probability: Doubles = exp / exp.sum(-1, keepdims=True)
    return probability


def shift_probability(logits: Doubles, classes: int, temperature: float = 1.0) -> Doubles:
    """1 - trace of the (from, to) matrix of each pair: [P, C * C] -> [P]."""
    diagonal = np.arange(classes) * (classes + 1)
    stays = softmax(logits, temperature)[:, diagonal].sum(1)
    shifts: Doubles = np.clip(1.0 - stays, 0.0, 1.0)
    return shifts


def emotion_temperature(logits: Doubles, labels: Ints) -> float:
    """The temperature with the least negative log-likelihood of `labels`."""

    def loss(log_temperature: float) -> float:
        p = softmax(logits, math.exp(log_temperature))[np.arange(len(labels)), labels]
        return float(-np.log(np.maximum(p, 1e-12)).mean())

    return math.exp(_least(loss, math.log(0.1), math.log(10.0)))


def shift_temperature(
    logits: Doubles, shifted: NDArray[np.bool_], classes: int
) -> tuple[float, float]:
    """Temperature, and a bias of the diagonal, with the least loss of *shifted or not*.

    Fitted to the probability that is stated (1 - trace), not to the C * C joint classes. A
    temperature alone cannot make it less sure: as it grows, 1 - trace tends to 1 - 1 / C, not to
    the base rate. The bias is in the units of the logits (`with_diagonal_bias`).
    """
    stays = np.eye(classes, dtype=np.bool_).ravel()

    def odds(temperature: float) -> Doubles:
        scaled = logits / temperature
        scaled = scaled - scaled.max(1, keepdims=True)
        exp = np.exp(scaled)
        ratio: Doubles = np.log(exp[:, ~stays].sum(1)) - np.log(exp[:, stays].sum(1))
        return ratio

    def loss(odds_moved: Doubles, bias: float) -> float:
        signed = np.where(shifted, odds_moved - bias, bias - odds_moved)
        return float(np.logaddexp(0.0, -signed).mean())

    def best_bias(temperature: float) -> float:
        ratio = odds(temperature)
        return _least(lambda bias: loss(ratio, bias), -5.0, 5.0)

    def log_loss(log_temperature: float) -> float:
        temperature = math.exp(log_temperature)
        return loss(odds(temperature), best_bias(temperature))

    temperature = math.exp(_least(log_loss, math.log(0.1), math.log(10.0)))
    return temperature, best_bias(temperature) * temperature


def with_diagonal_bias(logits: Doubles, bias: float, classes: int) -> Doubles:
    """Add `bias` to the logits of *no shift*: [P, C * C]."""
    return logits + bias * np.eye(classes).ravel()


def _least(loss: Callable[[float], float], low: float, high: float) -> float:
    """Golden-section search for where `loss` is least between `low` and `high`."""
    for _ in range(40):
        c, d = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        if loss(c) < loss(d):
            high = d
        else:
            low = c
    return (low + high) / 2


def operating_point(
    probability: Doubles, shifted: NDArray[np.bool_], false_alarms_per_100: float
) -> float:
    """The lowest threshold with at most that many false alarms per 100 pairs."""
    allowed = math.floor(false_alarms_per_100 / 100 * len(probability))
    wrong = np.sort(probability[~shifted])[::-1]
    if len(wrong) <= allowed:
        return 0.0
    # The first false alarm beyond the budget must stay under the threshold.
    return float(np.nextafter(wrong[allowed], np.inf))


def out_of_fold_errors(answers: Answers, *, folds: int = 5) -> tuple[float, float]:
    """ECE of emotion and of shift when no dialogue is judged by what was fitted on it.

    Temperatures (and the diagonal's bias) are fitted on the other folds of whole dialogues: what
    the calibrated split would show if it were new. NaN without two dialogues to split.
    """
    if answers.dialogues < 2:
        return float("nan"), float("nan")
    fold = np.random.default_rng(0).permutation(answers.dialogues) % folds
    own, pair = fold[answers.dialogue], fold[answers.pair_dialogue]
    stated, moved = np.zeros(len(own)), np.zeros(len(pair))
    for k in range(folds):
        held, learned = own == k, own != k
        if held.any() and learned.any():
            t = emotion_temperature(answers.emotion[learned], answers.labels[learned])
            stated[held] = softmax(answers.emotion[held], t).max(1)
        held, learned = pair == k, pair != k
        if held.any() and learned.any():
            t, bias = shift_temperature(
                answers.shift[learned], answers.shifted[learned], answers.classes
            )
            shift = with_diagonal_bias(answers.shift[held], bias, answers.classes)
            moved[held] = shift_probability(shift, answers.classes, t)
    return calibration_error(stated, answers.right), calibration_error(moved, answers.shifted)


def calibrate(
    emotion_logits: Doubles, labels: Ints, shift_logits: Doubles, shifts: Ints, classes: int
) -> tuple[Calibration, Thresholds, float]:
    """Fit temperatures, thresholds and the diagonal bias on the dev split's logits and labels.

    Logits are [N, C] and [P, C * C]. The rule alerts where dev shows at most
    `FALSE_ALARMS_PER_100` false alarms per 100 pairs and re-arms under the point of twice that
    budget. It abstains on the least sure `ABSTAIN_SHARE` of dev. The bias belongs into the shift
    head: temperatures and thresholds are of a head that has it.
    """
    emotion = emotion_temperature(emotion_logits, labels)
    confidence = softmax(emotion_logits, emotion).max(1)
    abstain = float(np.quantile(confidence, ABSTAIN_SHARE))
    if len(shifts) == 0:
        return Calibration(emotion, 1.0, "dev"), Thresholds(abstain, 1.0, 0.9), 0.0
    shifted = shifts // classes != shifts % classes
    shift, bias = shift_temperature(shift_logits, shifted, classes)
    shift_logits = with_diagonal_bias(shift_logits, bias, classes)
    stated = shift_probability(shift_logits, classes, shift)
    enter = operating_point(stated, shifted, FALSE_ALARMS_PER_100)
    leave = operating_point(stated, shifted, 2 * FALSE_ALARMS_PER_100)
    thresholds = Thresholds(abstain, enter, min(leave, 0.95 * enter))
    return Calibration(emotion, shift, "dev"), thresholds, bias
