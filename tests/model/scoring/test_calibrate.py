"""Temperatures, maps and operating points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.scoring.answers import Answers
from model.scoring.calibrate import (
    LEAST_SHIFTS,
    _logistic,
    alert_points,
    beta_map,
    calibrate,
    emotion_calibration,
    emotion_probabilities,
    fitted_temperature,
    operating_point,
    out_of_fold_errors,
    shift_calibration,
    shift_cells,
    shift_probability,
    softmax,
    stated_shifts,
)
from model.scoring.scores import Bools, Doubles, Ints, calibration_error
from model.serving.calibration import Calibration


def sampled(seed: int, rows: int, classes: int) -> tuple[Doubles, Ints]:
    """Logits, and labels drawn from exactly the probabilities they state."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, classes)) * 2
    draw = rng.random((rows, 1))
    labels = (softmax(logits).cumsum(1) < draw).sum(1).clip(max=classes - 1)
    return logits, labels


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_a_scale(scale: float) -> None:
    logits, labels = sampled(0, 6000, 5)
    assert fitted_temperature(logits * scale, labels) == pytest.approx(scale, rel=0.06)


def with_weights(seed: int, rows: int) -> tuple[Doubles, Ints]:
    """As class weights leave it: less of a spread, and the last class is answered too surely."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, 5)) * 2
    told = WEIGHTED.stated
    right = rng.random(rows) < [max(told(row)) for row in softmax(logits).tolist()]
    answer = logits.argmax(1)
    return logits, np.where(right, answer, (answer + rng.integers(1, 5, rows)) % 5)


WEIGHTED = Calibration(slope=0.6, offsets=(0.5, 0.5, 0.5, 0.5, -1.0))


def test_the_confidence_map_corrects_errors_that_no_temperature_can() -> None:
    fitted = emotion_calibration(*with_weights(0, 4000))
    logits, labels = with_weights(1, 20000)  # unseen
    last, right = logits.argmax(1) == 4, logits.argmax(1) == labels
    stated = emotion_probabilities(logits, fitted).max(1)
    alone = softmax(logits, fitted_temperature(logits, labels)).max(1)
    assert calibration_error(stated, right) < 0.025 < 0.04 < calibration_error(alone, right)
    assert stated[last].mean() == pytest.approx(right[last].mean(), abs=0.03)
    assert alone[last].mean() > right[last].mean() + 0.04


def test_the_confidence_map_leaves_calibrated_answers_alone() -> None:
    fitted = emotion_calibration(*sampled(2, 20000, 5))
    assert fitted.emotion == pytest.approx(1.0, abs=0.05)
    assert fitted.slope == pytest.approx(1.0, abs=0.07)
    assert np.abs(fitted.offsets).max() < 0.1


@given(
    st.lists(st.floats(1e-6, 1), min_size=2, max_size=7),
    st.floats(0.1, 3),
    st.floats(-4, 4),
)
def test_the_answer_stays_the_likeliest(shares: list[float], slope: float, offset: float) -> None:
    softened = [share / sum(shares) for share in shares]
    offsets = tuple(offset if i % 2 else -offset for i in range(len(shares)))
    stated = Calibration(slope=slope, offsets=offsets).stated(softened)
    answer = softened.index(max(softened))
    assert sum(stated) == pytest.approx(1.0, abs=1e-9)
    assert stated.index(max(stated)) == answer
    assert all(p < stated[answer] for i, p in enumerate(stated) if i != answer)
    others = [i for i in range(len(shares)) if i != answer]
    given_shares = np.array([softened[i] for i in others])
    np.testing.assert_allclose(  # the others share what remains as before
        [stated[i] for i in others],
        given_shares / given_shares.sum() * (1 - stated[answer]),
        atol=1e-12,
    )


@pytest.mark.parametrize("softened", [(1.0, 0.0), (float("nan"), 0.5)])
def test_a_certain_or_broken_row_is_left_as_it_is(softened: tuple[float, ...]) -> None:
    found = Calibration(slope=0.5, offsets=(1.0, 2.0)).stated(softened)
    np.testing.assert_array_equal(found, softened)


@pytest.mark.parametrize("rows", [1, 3, 30])
def test_a_class_that_is_never_answered_has_the_common_offset(rows: int) -> None:
    logits, labels = sampled(3, rows, 3)
    logits[:, 2] = -50.0
    for truth in (labels, logits.argmax(1)):  # some right, all right
        fitted = emotion_calibration(logits, truth)
        assert np.isfinite([fitted.slope, *fitted.offsets]).all()
        assert fitted.offsets[2] == pytest.approx(np.mean(fitted.offsets[:2]), abs=0.1)
        assert np.abs(fitted.offsets).max() < 6


@pytest.mark.parametrize("seed", range(40))
def test_the_weights_of_the_confidence_map_settle(seed: int) -> None:
    """Also where odds are large and say nothing: a full Newton step overshoots there."""
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(20, 400))
    given_odds = np.column_stack(
        (rng.normal(size=rows) * 10 ** rng.uniform(-2, 1.5), np.ones(rows))
    )
    happened = rng.random(rows) < 0.3
    towards, ridge = np.array([1.0, 0.0]), np.array([3.0, 0.1])
    weight = _logistic(given_odds, happened, towards, ridge)
    p = 1 / (1 + np.exp(-(given_odds @ weight)))
    slope_of_the_loss = given_odds.T @ (p - happened) + ridge * (weight - towards)
    np.testing.assert_allclose(slope_of_the_loss, 0.0, atol=1e-6)


@pytest.mark.slow
def test_the_shift_fit_undoes_a_scale_of_every_cell_and_a_bias_of_the_stated_shift() -> None:
    logits, shifts = sampled(1, 20000, 9)
    shifted = moved(shifts)
    fitted = shift_calibration(2 * logits, shifts, 3)
    assert fitted.shift == pytest.approx(2, rel=0.05)
    np.testing.assert_allclose(shift_cells(2 * logits, fitted), softmax(logits), atol=0.06)
    distorted = 2 * logits - np.eye(3).ravel()  # too sure, and of a shift most of all
    stated = stated_shifts(distorted, shift_calibration(distorted, shifts, 3))
    raw = shift_probability(distorted, 3)
    assert calibration_error(stated, shifted) < 0.02 < 0.06 < calibration_error(raw, shifted)


BENT = Calibration(shift_map=(0.5, 1.4, -0.6))  # about what MELD's training leaves


def with_a_bend(seed: int, rows: int) -> tuple[Doubles, Ints]:
    """Joint logits [rows, 9], too sure of a shift at one end and not sure enough at the other."""
    logits, _ = sampled(seed, rows, 9)
    draw = np.random.default_rng(seed + 100).random((rows, 1))
    shifts = (shift_cells(logits, BENT).cumsum(1) < draw).sum(1).clip(max=8)
    return logits, shifts


def moved(shifts: Ints) -> Bools:
    return np.asarray(shifts // 3 != shifts % 3)


@pytest.mark.slow
def test_the_beta_map_undoes_a_bend_that_no_temperature_can() -> None:
    fitted = shift_calibration(*with_a_bend(3, 40000), 3)
    logits, shifts = with_a_bend(4, 40000)  # unseen
    shifted = moved(shifts)
    straight = shift_probability(logits, 3, _best_temperature(logits, shifted))
    bent = stated_shifts(logits, fitted)
    assert calibration_error(bent, shifted) < 0.015 < 0.02 < calibration_error(straight, shifted)
    for low, high in ((0.0, 0.2), (0.4, 0.6), (0.8, 1.0)):
        inside = (low <= bent) & (bent < high)
        assert bent[inside].mean() == pytest.approx(shifted[inside].mean(), abs=0.03)


def _best_temperature(logits: Doubles, shifted: Bools) -> float:
    """The one with the least calibration error, chosen on the very pairs it is judged on."""
    tried = np.geomspace(0.2, 5.0, 50).tolist()
    errors = [calibration_error(shift_probability(logits, 3, t), shifted) for t in tried]
    return float(tried[int(np.argmin(errors))])


def test_the_beta_map_leaves_calibrated_shifts_alone() -> None:
    rng = np.random.default_rng(5)
    stated = rng.random(20000)
    found = beta_map(stated, rng.random(20000) < stated)
    assert found == pytest.approx((1.0, 1.0, 0.0), abs=0.07)


@pytest.mark.parametrize("rows", [0, 1, 5, 200])
@pytest.mark.parametrize("case", ["always", "never", "the other way", "certain"])
def test_the_beta_map_never_turns_the_order_round(case: str, rows: int) -> None:
    rng = np.random.default_rng(rows)
    stated = rng.random(rows) if case != "certain" else np.round(rng.random(rows))
    happened = {
        "always": np.ones(rows, np.bool_),
        "never": np.zeros(rows, np.bool_),
        "the other way": stated < 0.5,
        "certain": stated > 0.5,
    }[case]
    a, b, c = beta_map(stated, happened)
    assert min(a, b) > 0.09
    assert np.abs([a, b, c]).max() < 20


cells = st.lists(st.floats(1e-6, 1), min_size=9, max_size=9)
maps = st.tuples(st.floats(0.1, 3), st.floats(0.1, 3), st.floats(-4, 4))


@given(cells, maps)
def test_a_mapped_matrix_states_the_mapped_shift(
    shares: list[float], by: tuple[float, ...]
) -> None:
    softened = np.array(shares) / sum(shares)
    found, probability = Calibration(shift_map=by).stated_shift(softened.tolist())
    stated = np.array(found)
    own = np.eye(3, dtype=np.bool_).ravel()
    p = softened[~own].sum()
    odds = by[0] * np.log(p) - by[1] * np.log(1 - p) + by[2]
    assert probability == pytest.approx(1 / (1 + np.exp(-odds)), rel=1e-6)
    assert 1 - stated[own].sum() == pytest.approx(probability, abs=1e-12)
    assert stated.sum() == pytest.approx(1.0, abs=1e-12)
    for side in (own, ~own):  # within the diagonal, and off it, the shares are as before
        before, after = softened[side], stated[side]
        np.testing.assert_allclose(after / after.sum(), before / before.sum(), rtol=1e-9)


@given(st.floats(0.01, 0.98), maps)
def test_the_likelier_shift_stays_likelier(p: float, by: tuple[float, ...]) -> None:
    def stated(shift: float) -> float:
        stays, moves = (1 - shift) / 2, shift / 2
        return Calibration(shift_map=by).stated_shift([stays, moves, moves, stays])[1]

    assert stated(p) < stated(p + 0.01)


@pytest.mark.parametrize(
    ("softened", "shifts"),
    [((0.25, 0.0, 0.0, 0.75), 0.0), ((0.0, 1.0, 0.0, 0.0), 1.0), ((float("nan"),) * 4, None)],
)
def test_a_certain_or_broken_matrix_is_left_as_it_is(
    softened: tuple[float, ...], shifts: float | None
) -> None:
    found, probability = Calibration(shift_map=(0.5, 1.4, -0.6)).stated_shift(softened)
    np.testing.assert_array_equal(found, softened)
    assert shifts is None or probability == shifts


def test_arrays_and_rows_state_the_same() -> None:
    logits, _ = sampled(6, 50, 9)
    fitted = replace(BENT, shift=0.7)
    found = shift_cells(logits, fitted)
    traces = found.reshape(-1, 3, 3).trace(axis1=1, axis2=2)
    np.testing.assert_allclose(stated_shifts(logits, fitted), 1 - traces, atol=1e-12)
    plain = replace(fitted, shift_map=())
    np.testing.assert_allclose(shift_cells(logits, plain), softmax(logits, 0.7), atol=1e-15)
    np.testing.assert_allclose(
        stated_shifts(logits, plain), shift_probability(logits, 3, 0.7), atol=1e-12
    )
    assert shift_cells(np.empty((0, 9)), fitted).shape == (0, 9)


def test_shift_probability_is_one_minus_the_trace() -> None:
    logits, _ = sampled(2, 20, 9)
    joint = softmax(logits).reshape(20, 3, 3)
    traces = np.array([np.trace(j) for j in joint])
    np.testing.assert_allclose(shift_probability(logits, 3), 1 - traces, atol=1e-12)


@pytest.mark.parametrize("budget", [0.0, 2.0, 5.0, 10.0])
def test_the_operating_point_is_the_lowest_within_its_budget(budget: float) -> None:
    rng = np.random.default_rng(3)
    stated = rng.integers(0, 100, 500) / 100  # ties
    shifted = rng.random(500) < stated
    threshold = operating_point(stated, shifted, budget)

    def false_alarms(at: float) -> int:
        return int(((stated >= at) & ~shifted).sum())

    assert false_alarms(threshold) <= budget * 5
    lower = stated[stated < threshold].max()
    assert false_alarms(float(lower)) > budget * 5


def test_a_budget_nobody_can_overrun_alerts_always() -> None:
    assert operating_point(np.array([0.2, 0.4]), np.array([True, True]), 0.0) == 0.0


def test_calibration_abstains_on_its_share_and_rearms_below_its_threshold() -> None:
    logits, labels = sampled(4, 1000, 3)
    joint, shifts = sampled(5, 800, 9)
    fitted, thresholds = calibrate(logits, labels, joint, shifts, 3)
    confidence = emotion_probabilities(logits, fitted).max(1)
    assert (confidence < thresholds.abstain_below).mean() == pytest.approx(0.05, abs=0.002)
    assert 0 < thresholds.shift_exit < thresholds.shift < 1
    shifted, alone = moved(shifts), shift_calibration(joint, shifts, 3)
    assert (fitted.shift, fitted.shift_map) == (alone.shift, alone.shift_map)
    stated = stated_shifts(joint, fitted)
    assert np.abs(stated - shift_probability(joint, 3)).mean() < 0.05  # little is to be mended
    assert 100 * ((stated >= thresholds.shift) & ~shifted).mean() == pytest.approx(5.0, abs=0.1)


def test_a_set_without_pairs_can_be_calibrated_and_has_the_fallback_threshold() -> None:
    logits, labels = sampled(6, 100, 3)
    fitted, thresholds = calibrate(logits, labels, np.empty((0, 9)), np.empty(0, np.int64), 3)
    assert (fitted.shift, fitted.shift_map, thresholds.shift) == (1.0, (), 0.5)


@pytest.mark.parametrize("shifts", [0, 2, LEAST_SHIFTS - 1])
def test_too_few_shifts_choose_no_threshold(shifts: int) -> None:
    stated = np.linspace(0.01, 0.2, 60)
    shifted = np.arange(60) >= 60 - shifts
    assert alert_points(stated, shifted, 5.0) == (0.5, 0.4)
    enough = np.arange(60) >= 60 - LEAST_SHIFTS
    enter, leave = alert_points(stated, enough, 5.0)
    assert leave < enter < 0.2
    logits, labels = sampled(7, 100, 2)
    joint = np.random.default_rng(0).normal(size=(60, 4))
    _, chosen = calibrate(logits, labels, joint, np.where(shifted, 1, 0), 2)
    assert (chosen.shift, chosen.shift_exit) == (0.5, 0.4)


def cut(dialogues: int, rows: int, seed: int) -> Answers:
    """Sampled answers, cut into dialogues of equal length."""
    logits, labels = sampled(seed, rows, 3)
    joint, shifts = sampled(seed + 1, rows, 9)
    number = np.arange(rows) * dialogues // rows
    return Answers(logits, labels, number, joint, shifts, number, dialogues)


def test_errors_out_of_fold_are_near_chance_where_a_temperature_suffices() -> None:
    answers = cut(50, 5000, 7)
    distorted = replace(answers, emotion=3 * answers.emotion, shift=0.5 * answers.shift)
    for found in (out_of_fold_errors(answers), out_of_fold_errors(distorted)):
        assert max(found) < 0.035


@pytest.mark.slow
def test_the_error_out_of_fold_is_that_of_the_beta_map() -> None:
    joint, shifts = with_a_bend(8, 20000)
    answers = cut(50, 20000, 7)
    bent = replace(answers, shift=joint, shifts=shifts)
    assert out_of_fold_errors(bent)[1] < 0.015


def test_a_temperature_judges_no_dialogue_it_was_fitted_on() -> None:
    """Two dialogues that need opposite temperatures: each is judged by the other's."""
    sharp, sure = np.array([0, 1] * 200), np.eye(2)[np.array([0, 1] * 200)]
    labels = np.concatenate((sharp, np.where(np.arange(400) % 10 < 4, 1 - sharp, sharp)))
    emotion = np.concatenate((sure, sure))  # always right, then 6 times of 10
    number = np.repeat([0, 1], 400)
    shift = np.zeros((2, 4))
    pairs = np.array([0, 1])
    answers = Answers(emotion, labels, number, shift, np.array([0, 3]), pairs, 2)
    error = out_of_fold_errors(answers, folds=2)[0]
    assert error == pytest.approx(0.4, abs=0.02)  # .6 is said of what is sure, 1 of what is .6


def test_one_dialogue_cannot_be_folded() -> None:
    assert np.isnan(out_of_fold_errors(cut(1, 20, 9))).all()
