"""Calibration of answers: logits to stated probabilities, and operating points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

ANSWER_LEADS: Final = 0.01  # log-odds by which the answer stays ahead of the next class
MOST_ODDS: Final = 30.0  # log-odds of a shift that are stated: no float loses them


@dataclass(frozen=True, slots=True)
class Calibration:
    """A map from logits to the stated probabilities, with the split it was fitted on.

    A temperature scales the confidence of all answers alike. The remaining error depends on the
    answered emotion: class weights make rare ones too sure. So the log-odds of the answer are
    multiplied by `slope` and moved by the `offsets` of its class, as Platt (1999) does for two
    classes; the other classes share the rest as before.

    A probability p of a shift becomes the one with log-odds a log p - b log(1 - p) + c, the beta
    map of Kull, Silva Filho and Flach (2017): too sure at one end need not be too sure at the
    other. The cells off the diagonal share it as before, and those on it share the rest.
    """

    emotion: float = 1.0  # temperature
    shift: float = 1.0  # temperature of the (from, to) matrix
    fitted_on: str = "nothing"
    slope: float = 1.0
    offsets: tuple[float, ...] = ()  # [C]; none: the temperature alone
    shift_map: tuple[float, ...] = ()  # a, b, c; none: the temperature alone

    def stated(self, softened: Sequence[float]) -> tuple[float, ...]:
        """Return probabilities [C], the answer's the largest, from a softmax at the temperature.

        In Python floats: a row's numbers do not depend on the rest of its batch.
        """
        if not self.offsets or not all(map(math.isfinite, softened)):
            return tuple(softened)
        answer = max(range(len(softened)), key=softened.__getitem__)
        others = [p for i, p in enumerate(softened) if i != answer]
        rest = sum(others)
        if rest <= 0.0:  # certain to float precision: the map would only lose that
            return tuple(softened)
        odds = self.slope * math.log(softened[answer] / rest) + self.offsets[answer]
        least = math.log(max(others) / rest) + ANSWER_LEADS  # the answer stays the likeliest
        answered = 1.0 / (1.0 + math.exp(-max(odds, least)))
        shared = (1.0 - answered) / rest
        return tuple(answered if i == answer else p * shared for i, p in enumerate(softened))

    def stated_shift(self, softened: Sequence[float]) -> tuple[tuple[float, ...], float]:
        """Return (from, to) cells [C * C] and P(shift), from a softmax of the head."""
        classes = math.isqrt(len(softened))
        same, other = softened[:: classes + 1], list(softened)
        other[:: classes + 1] = [0.0] * classes
        stays, moves = sum(same), sum(other)
        if not self.shift_map or not (stays > 0.0 and moves > 0.0):  # certain, or not a number
            return tuple(softened), max(0.0, 1.0 - stays)
        a, b, c = self.shift_map
        odds = a * math.log(moves) - b * math.log(stays) + c
        shifts = 1.0 / (1.0 + math.exp(-max(-MOST_ODDS, min(odds, MOST_ODDS))))
        less, more = (1.0 - shifts) / stays, shifts / moves
        cells = [p * more for p in other]
        cells[:: classes + 1] = [p * less for p in same]
        return tuple(cells), shifts

    def __str__(self) -> str:
        mapped = ", mapped" if self.offsets or self.shift_map else ""
        return (
            f"temperature(emotion={self.emotion:.2f}, shift={self.shift:.2f}; "
            f"fitted on {self.fitted_on}){mapped}"
        )


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Operating points, chosen on dev."""

    abstain_below: float = 0.0  # confidence
    shift: float = 0.5  # probability at which the built-in rule raises an alert
    shift_exit: float = 0.4  # and below which it re-arms
