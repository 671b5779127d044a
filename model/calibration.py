"""From logits to stated probabilities, and the thresholds chosen with them, all on dev."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.checkpoint import Calibration, Thresholds
from model.scores import Doubles, Ints

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

    def loss(temperature: float) -> float:
        p = softmax(logits, temperature)[np.arange(len(labels)), labels]
        return float(-np.log(np.maximum(p, 1e-12)).mean())

    return _least(loss)


def shift_temperature(logits: Doubles, shifted: NDArray[np.bool_], classes: int) -> float:
    """The temperature with the least negative log-likelihood of *shifted or not*.

    Fitted to the probability that is stated (1 - trace), not to the 49 joint classes.
    """

    def loss(temperature: float) -> float:
        p = np.clip(shift_probability(logits, classes, temperature), 1e-12, 1 - 1e-12)
        return float(-np.where(shifted, np.log(p), np.log1p(-p)).mean())

    return _least(loss)


def _least(loss: Callable[[float], float], low: float = 0.1, high: float = 10.0) -> float:
    """Golden-section search for the least `loss` on a log scale; 1.0 when nothing beats it."""
    a, b = math.log(low), math.log(high)
    for _ in range(60):
        c, d = b - _GOLDEN * (b - a), a + _GOLDEN * (b - a)
        if loss(math.exp(c)) < loss(math.exp(d)):
            b = d
        else:
            a = c
    found = math.exp((a + b) / 2)
    return found if loss(found) < loss(1.0) else 1.0


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


def calibrate(
    emotion_logits: Doubles, labels: Ints, shift_logits: Doubles, shifts: Ints, classes: int
) -> tuple[Calibration, Thresholds]:
    """Fit temperatures and thresholds on the dev split's logits ([N, C], [P, C * C]) and labels.

    The rule alerts where dev shows at most `FALSE_ALARMS_PER_100` false alarms per 100 pairs and
    re-arms under the point of twice that budget. It abstains on the least sure
    `ABSTAIN_SHARE` of dev.
    """
    emotion = emotion_temperature(emotion_logits, labels)
    confidence = softmax(emotion_logits, emotion).max(1)
    abstain = float(np.quantile(confidence, ABSTAIN_SHARE))
    if len(shifts) == 0:
        return Calibration(emotion, 1.0, "dev"), Thresholds(abstain, 1.0, 0.9)
    shifted = shifts // classes != shifts % classes
    shift = shift_temperature(shift_logits, shifted, classes)
    stated = shift_probability(shift_logits, classes, shift)
    enter = operating_point(stated, shifted, FALSE_ALARMS_PER_100)
    leave = operating_point(stated, shifted, 2 * FALSE_ALARMS_PER_100)
    thresholds = Thresholds(abstain, enter, min(leave, 0.95 * enter))
    return Calibration(emotion, shift, "dev"), thresholds
