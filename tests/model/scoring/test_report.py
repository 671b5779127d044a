"""The report: values by hand on a few answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from model.scoring.answers import Answers
from model.scoring.bootstrap import dialogue_weights, differences, resampled_scores
from model.scoring.report import Report, difference_rows, goal_rows, report_data, score
from model.serving.calibration import Calibration, Thresholds

LABELS = ("neutral", "joy")
# truth n n j j; answered n n n j, with confidences .9 .8 .6 .7
CONFIDENCE = np.array([0.9, 0.8, 0.6, 0.7])
GUESS = np.array([0, 0, 0, 1])
SURE = np.where(np.arange(2) == GUESS[:, None], CONFIDENCE[:, None], 1 - CONFIDENCE[:, None])
# pairs nn nj jj; stated shift probabilities .2 .7 .4
MOVED = np.array([0.2, 0.7, 0.4])
JOINT = np.stack(
    ((1 - MOVED) * [0.9, 0.8, 0.3], MOVED * 0.9, MOVED * 0.1, (1 - MOVED) * [0.1, 0.2, 0.7]), axis=1
)
ANSWERS = Answers(
    emotion=np.log(SURE),
    labels=np.array([0, 0, 1, 1]),
    dialogue=np.array([0, 0, 1, 1]),
    shift=np.log(JOINT),
    shifts=np.array([0, 1, 3]),
    pair_dialogue=np.array([0, 1, 1]),
    dialogues=2,
)


@pytest.fixture(scope="module")
def report() -> Report:
    return score(ANSWERS, Calibration(), Thresholds(0.65, 0.5, 0.4), LABELS, resamples=50)


def test_the_shift_is_scored_on_its_stated_probability() -> None:
    bent = Calibration(shift_map=(0.5, 1.4, -0.6))
    report = score(ANSWERS, bent, Thresholds(0.65, 0.6, 0.4), LABELS, resamples=5)
    odds = 0.5 * np.log(MOVED) - 1.4 * np.log(1 - MOVED) - 0.6
    stated = 1 / (1 + np.exp(-odds))  # .25 .71 .42
    gaps = stated - [0, 1, 0]  # each pair in a bin of its own
    assert report.shift.after.ece == pytest.approx(np.abs(gaps).mean())
    assert report.shift.before.ece == pytest.approx(np.abs(MOVED - [0, 1, 0]).mean())


def test_the_classes_are_counted_by_hand(report: Report) -> None:
    assert report.confusion.tolist() == [[2, 0], [1, 1]]
    neutral, joy = report.classes
    assert (neutral.precision, neutral.recall, neutral.f1) == pytest.approx((2 / 3, 1, 0.8))
    assert (joy.precision, joy.recall, joy.f1, joy.support) == pytest.approx((1, 0.5, 2 / 3, 2))
    assert report.accuracy.value == pytest.approx(0.75)
    assert report.macro_f1.value == pytest.approx((0.8 + 2 / 3) / 2)


def test_base_rates_are_the_scores_of_one_answer_for_everything(report: Report) -> None:
    assert report.majority.answer == "neutral"
    assert report.majority.accuracy == pytest.approx(0.5)
    assert report.majority.weighted_f1 == pytest.approx(1 / 3)
    assert report.no_shift.answer == "neutral → neutral"
    assert report.no_shift.accuracy == pytest.approx(1 / 3)
    assert report.shift_base_rate == pytest.approx(1 / 3)


def test_alerts_and_abstention_are_at_the_checkpoints_thresholds(report: Report) -> None:
    assert (report.alerts.recall, report.alerts.precision) == (1.0, 1.0)
    assert (report.alerts.false_per_100, report.alerts.false_rate) == (0.0, 0.0)
    assert report.abstention.abstained == pytest.approx(0.25)
    assert report.abstention.abstained_accuracy == 0.0
    assert report.abstention.answered_accuracy == 1.0
    assert report.risk.area == pytest.approx(0.25 / 4)


def test_a_false_alarm_costs_precision_not_recall() -> None:
    found = score(ANSWERS, Calibration(), Thresholds(0.0, 0.35, 0.3), LABELS, resamples=5).alerts
    assert (found.recall, found.precision, found.false_rate) == (1.0, 0.5, 0.5)
    assert found.false_per_100 == pytest.approx(100 / 3)


def test_no_shift_is_the_commonest_pair_of_equal_emotions() -> None:
    joyful = replace(
        ANSWERS,
        shift=np.zeros((4, 4)),
        shifts=np.array([3, 3, 0, 1]),
        pair_dialogue=np.array([0, 0, 1, 1]),
    )
    found = score(joyful, Calibration(), Thresholds(), LABELS, resamples=5).no_shift
    assert (found.answer, found.accuracy) == ("joy → joy", 0.5)


def test_calibration_is_reported_before_and_after_the_temperature() -> None:
    report = score(ANSWERS, Calibration(2.0, 1.0, "dev"), Thresholds(), LABELS, resamples=5)
    assert report.emotion.temperature == 2.0
    other = score(ANSWERS, Calibration(2.0, 1.5, "dev"), Thresholds(), LABELS, resamples=5)
    assert other.shift.temperature == 1.5
    assert report.emotion.before.ece == pytest.approx((0.1 + 0.2 + 0.6 + 0.3) / 4)
    root = np.sqrt(SURE)
    cooled = (root / root.sum(1, keepdims=True)).max(1)
    bins = (cooled * 15).astype(int)
    gaps = [(cooled - (ANSWERS.labels == GUESS))[bins == b].sum() for b in np.unique(bins)]
    assert report.emotion.after.ece == pytest.approx(np.abs(gaps).sum() / 4)
    assert repr(report.shift.after) == repr(report.shift.before)  # NaN equals itself


def test_the_operating_point_is_on_the_curve(report: Report) -> None:
    curve, alerts = report.shift_decisions, report.alerts
    at = int(np.flatnonzero(curve.threshold >= alerts.threshold)[-1])
    assert curve.recall[at] == pytest.approx(alerts.recall)
    assert curve.false_rate[at] == pytest.approx(alerts.false_rate)
    assert curve.precision[at] == pytest.approx(alerts.precision)


def test_the_whole_report_is_data(report: Report) -> None:
    data = report_data(report)
    assert data["confusion"] == [[2, 0], [1, 1]]
    assert data["accuracy"]["value"] == pytest.approx(0.75)
    assert data["shift_decisions"]["threshold"][0] is None  # infinity: nothing is said
    assert len(data["emotion"]["after"]["bins"]) == 15


def test_rows_name_the_base_rate_and_the_noise_floor_next_to_the_score(report: Report) -> None:
    rows = goal_rows(report)
    assert "always neutral: 33.3" in rows["A1"]["reference"]
    assert "always neutral → neutral" in rows["A4_c2_wf1"]["reference"]
    floor = 100 * report.emotion.after.floor
    assert f"chance alone gives {floor:.1f}" in rows["A5_emotion"]["reference"]


def test_differences_are_rows_with_a_verdict() -> None:
    drawn = dialogue_weights(2, resamples=10, seed=0)
    scores = resampled_scores(ANSWERS, Calibration(), drawn)
    rows = difference_rows(differences(scores, scores))
    assert rows["weighted_f1"]["verdict"] == "within noise"
    assert rows["weighted_f1"]["value"] == 0
    assert "score" not in rows["weighted_f1"]
