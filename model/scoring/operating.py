"""Operating points of the alert rule and of abstention, told and chosen on a split's answers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from model.scoring.answers import Answers
from model.scoring.calibrate import alert_points, emotion_probabilities, stated_shifts
from model.scoring.scores import Bools, Doubles
from model.serving.calibration import Calibration


@dataclass(frozen=True, slots=True)
class AlertPoint:
    """Alerting from one probability on; shares are NaN where there is none."""

    alert_at: float
    recall: float  # share of the shifts that are found
    precision: float  # share of the alerts that are shifts
    false_per_100: float  # false alarms per 100 pairs


@dataclass(frozen=True, slots=True)
class AbstainPoint:
    """Abstaining below one confidence; shares are NaN where there is none."""

    abstain_below: float
    abstained: float
    abstained_accuracy: float
    answered_accuracy: float


@dataclass(frozen=True, slots=True)
class Stated:
    """A checkpoint's statements on a split, and the truth."""

    shift: Doubles = field(repr=False)  # [P] probability of a shift
    shifted: Bools = field(repr=False)  # [P]
    confidence: Doubles = field(repr=False)  # [N]
    right: Bools = field(repr=False)  # [N]

    @property
    def shifts(self) -> int:
        """The number of pairs that shift."""
        return int(self.shifted.sum())

    @property
    def pairs_per_utterance(self) -> float:
        """Pairs of successive utterances of one speaker, for each utterance."""
        return len(self.shifted) / len(self.right)

    def alerts(self, alert_at: float) -> AlertPoint:
        """Return what alerting from this probability on does."""
        alerted = self.shift >= alert_at
        return AlertPoint(
            alert_at,
            _mean(alerted[self.shifted]),
            _mean(self.shifted[alerted]),
            100 * _mean(alerted & ~self.shifted),
        )

    def abstaining(self, abstain_below: float) -> AbstainPoint:
        """Return what abstaining below this confidence does."""
        unsure = self.confidence < abstain_below
        return AbstainPoint(
            abstain_below,
            _mean(unsure),
            _mean(self.right[unsure]),
            _mean(self.right[~unsure]),
        )

    def alerts_within(self, false_alarms_per_100: float) -> tuple[float, float]:
        """Return where to alert and to re-arm within a budget; see `alert_points`."""
        return alert_points(self.shift, self.shifted, false_alarms_per_100)

    def abstain_on(self, share: float) -> float:
        """Return the confidence below which this share of the utterances is."""
        return float(np.quantile(self.confidence, share))


def stated_of(answers: Answers, calibration: Calibration) -> Stated:
    """Return what a checkpoint with this calibration stated of the answers' split."""
    shift = stated_shifts(answers.shift, calibration) if len(answers.shift) else np.zeros(0)
    confidence = emotion_probabilities(answers.emotion, calibration).max(1)
    return Stated(shift, answers.shifted, confidence, answers.right)


def _mean(values: Bools) -> float:
    return float(values.mean()) if len(values) else float("nan")
