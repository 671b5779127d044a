"""Operating points of alerts and of abstention on a split."""

from __future__ import annotations

import numpy as np
import pytest

from model.scoring.operating import Stated

SHIFTED = np.arange(100) % 2 == 0
STATED = Stated(
    shift=np.where(SHIFTED, 0.6, 0.3) + np.linspace(0, 0.2, 100),
    shifted=SHIFTED,
    confidence=np.linspace(0, 1, 200),
    right=np.arange(200) >= 50,
)


@pytest.mark.parametrize("budget", [0.0, 1.0, 5.0, 20.0])
def test_a_budget_is_kept_and_used(budget: float) -> None:
    alert_at, again = STATED.alerts_within(budget)
    assert STATED.alerts(alert_at).false_per_100 == budget
    assert again < alert_at


def test_a_point_is_told_by_what_it_finds_and_by_what_is_wrong() -> None:
    found = STATED.alerts(0.55)
    assert (found.recall, found.precision, found.false_per_100) == (1.0, 1.0, 0.0)
    assert STATED.alerts(0.0).precision == 0.5
    assert np.isnan(STATED.alerts(2.0).precision)  # no alert at all
    assert (STATED.shifts, STATED.pairs_per_utterance) == (50, 0.5)


def test_abstaining_takes_the_least_sure() -> None:
    below = STATED.abstain_on(0.1)
    point = STATED.abstaining(below)
    assert point.abstained == pytest.approx(0.1)
    assert point.abstained_accuracy == 0.0
    assert point.answered_accuracy == pytest.approx(150 / 180)
