"""Intervals over whole dialogues, alone and of differences."""

from __future__ import annotations

import numpy as np
import pytest

from model.scoring.answers import Answers
from model.scoring.bootstrap import (
    SCORES,
    Difference,
    dialogue_weights,
    differences,
    interval,
    resampled_scores,
)
from model.scoring.calibrate import emotion_probabilities, stated_shifts
from model.scoring.scores import (
    Doubles,
    Ints,
    accuracy,
    auroc,
    average_precision,
    calibration_error,
    macro_f1,
    tally,
    weighted_f1,
)
from model.serving.calibration import Calibration

PLAIN = Calibration()


def random_answers(seed: int, *, dialogues: int = 8, rows: int = 100, pairs: int = 60) -> Answers:
    rng = np.random.default_rng(seed)
    return Answers(
        emotion=rng.normal(size=(rows, 3)),
        labels=rng.integers(0, 3, rows),
        dialogue=np.sort(rng.integers(0, dialogues, rows)),
        shift=rng.normal(size=(pairs, 9)),
        shifts=rng.integers(0, 9, pairs),
        pair_dialogue=np.sort(rng.integers(0, dialogues, pairs)),
        dialogues=dialogues,
    )


def only_emotion(truth: Ints, guess: Ints, dialogue: Ints) -> Answers:
    """Answers that are quite sure of `guess`; no pairs."""
    return Answers(
        emotion=20.0 * np.eye(2)[guess],
        labels=truth,
        dialogue=dialogue,
        shift=np.empty((0, 4)),
        shifts=np.empty(0, np.int64),
        pair_dialogue=np.empty(0, np.int64),
        dialogues=int(dialogue.max()) + 1,
    )


def test_the_interval_resamples_whole_dialogues() -> None:
    """Ten rows that always agree within a dialogue are one observation, not ten."""
    right = np.random.default_rng(1).random(40) < 0.6  # per dialogue
    truth = np.zeros(400, np.int64)
    guess = np.where(np.repeat(right, 10), 0, 1)

    def width(dialogue: Ints) -> float:
        answers = only_emotion(truth, guess, dialogue)
        drawn = dialogue_weights(answers.dialogues, resamples=2000, seed=0)
        found = interval(resampled_scores(answers, PLAIN, drawn)["accuracy"])
        assert found.value == pytest.approx(np.mean(guess == 0))
        assert found.low < found.value < found.high
        return found.high - found.low

    assert 2 < width(np.repeat(np.arange(40), 10)) / width(np.arange(400)) < 5  # sqrt(10) = 3.2


def test_every_resampled_score_is_that_of_the_rows_drawn() -> None:
    answers = random_answers(2)
    calibration = Calibration(0.7, 1.4, "dev", 0.8, (0.1, 0.2, -0.3), (0.5, 1.4, -0.9))
    drawn = dialogue_weights(answers.dialogues, resamples=20, seed=5)
    found = resampled_scores(answers, calibration, drawn)
    assert list(found) == list(SCORES)
    stated = emotion_probabilities(answers.emotion, calibration).max(1)
    moved = stated_shifts(answers.shift, calibration)
    for i, times in enumerate(drawn):
        rows = np.repeat(np.arange(100), times[answers.dialogue])
        pairs = np.repeat(np.arange(60), times[answers.pair_dialogue])
        counts = tally(answers.labels[rows], answers.guess[rows], 3)
        both = tally(answers.shifts[pairs], answers.shift.argmax(1)[pairs], 9)
        shifted = answers.shifted[pairs]
        expected: dict[str, Doubles | float] = {
            "accuracy": accuracy(counts),
            "weighted_f1": weighted_f1(counts),
            "macro_f1": macro_f1(counts),
            "shift_auroc": auroc(shifted, moved[pairs]),
            "shift_average_precision": average_precision(shifted, moved[pairs]),
            "shift_c2_weighted_f1": weighted_f1(both),
            "shift_c2_accuracy": accuracy(both),
            "emotion_ece": calibration_error(stated[rows], answers.right[rows]),
            "shift_ece": calibration_error(moved[pairs], shifted),
        }
        for name in SCORES:
            assert found[name][i] == pytest.approx(float(expected[name])), name


def test_the_first_draw_is_the_split_itself() -> None:
    drawn = dialogue_weights(5, resamples=3, seed=0)
    assert drawn[0].tolist() == [1, 1, 1, 1, 1]
    assert drawn.sum(1).tolist() == [5, 5, 5, 5]


def test_equal_answers_differ_by_exactly_nothing() -> None:
    drawn = dialogue_weights(8, resamples=50, seed=0)
    one, other = (resampled_scores(random_answers(4), PLAIN, drawn) for _ in range(2))
    for found in differences(one, other):
        assert (found.value, found.low, found.high, found.share_not_above) == (0, 0, 0, 1)
        assert found.verdict in ("within noise", "cannot be compared")


def test_a_paired_difference_is_narrower_than_two_intervals() -> None:
    """Two models that fail on the same dialogues: what is hard for both cancels out."""
    rng = np.random.default_rng(7)
    dialogue = np.repeat(np.arange(60), 10)
    truth = np.zeros(600, np.int64)
    hard = np.repeat(rng.random(60) < 0.4, 10)
    good = np.where(hard, 1, 0)
    worse = np.where(rng.random(600) < 0.05, 1, good)
    drawn = dialogue_weights(60, resamples=1000, seed=0)
    one, other = (
        resampled_scores(only_emotion(truth, guess, dialogue), PLAIN, drawn)
        for guess in (good, worse)
    )
    gap = differences(one, other)[0]
    alone = interval(one["accuracy"])
    assert gap.score == "accuracy"
    assert gap.value == pytest.approx((worse != good).mean())
    assert 0 < gap.low <= gap.value <= gap.high
    assert gap.high - gap.low < 0.3 * (alone.high - alone.low)
    assert gap.share_not_above == 0
    assert gap.verdict == "better"


@pytest.mark.parametrize(
    ("low", "high", "accuracy_says", "error_says"),
    [
        (0.1, 0.3, "better", "worse"),
        (-0.3, -0.1, "worse", "better"),
        (-0.1, 0.3, "within noise", "within noise"),
        (0.0, 0.2, "within noise", "within noise"),
    ],
)
def test_less_calibration_error_is_better(
    low: float, high: float, accuracy_says: str, error_says: str
) -> None:
    middle = (low + high) / 2
    assert Difference("accuracy", 0.5, 0.5, middle, low, high, 0.0).verdict == accuracy_says
    assert Difference("shift_ece", 0.5, 0.5, middle, low, high, 0.0).verdict == error_says


def test_without_pairs_the_shift_scores_are_not_numbers_and_cannot_be_compared() -> None:
    answers = only_emotion(np.zeros(4, np.int64), np.zeros(4, np.int64), np.array([0, 0, 1, 1]))
    scores = resampled_scores(answers, PLAIN, dialogue_weights(2, resamples=10, seed=0))
    empty: Doubles = scores["shift_auroc"]
    assert np.isnan(empty).all()
    assert np.isnan(interval(empty).low)
    by_name = {d.score: d.verdict for d in differences(scores, scores)}
    assert by_name["shift_auroc"] == by_name["shift_ece"] == "cannot be compared"
    assert by_name["accuracy"] == "within noise"
