"""Scores for people: words, base rates beside them, and what is too little said to be so."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from model.scoring.answers import Answers
from model.scoring.bootstrap import LEAST_DIALOGUES, Difference
from model.scoring.card import front_matter, scores_table
from model.scoring.html_page import Subject, difference_row, report_page, summary
from model.scoring.report import Report, report_data, score
from model.scoring.words import remarks, score_lines
from model.serving.calibration import Calibration, Thresholds


def answers(dialogues: int, pairs: int = 5) -> Answers:
    rng = np.random.default_rng(0)
    return Answers(
        emotion=rng.normal(size=(10 * dialogues, 2)),
        labels=rng.integers(0, 2, 10 * dialogues),
        dialogue=np.repeat(np.arange(dialogues), 10),
        shift=rng.normal(size=(pairs * dialogues, 4)),
        shifts=rng.integers(0, 4, pairs * dialogues),
        pair_dialogue=np.repeat(np.arange(dialogues), pairs),
        dialogues=dialogues,
    )


POINTS = Thresholds()


def scored(of: Answers, points: Thresholds = POINTS) -> Report:
    return score(of, Calibration(), points, ("calm", "joy"), resamples=20, fitted_here=True)


def told(report: Report) -> str:
    """Everything that a person is shown of a report."""
    subject = Subject("m 1", "d" * 64, "calls", "dev", "emotrack evaluate", "None.")
    cells = [cell for line in score_lines(report) for cell in line]
    page = report_page(subject, report, ())
    return "\n".join([*cells, *remarks(report), *summary(report), scores_table(report), page])


def test_scores_have_words_and_neither_codes_nor_the_aims_of_meld() -> None:
    report = scored(answers(LEAST_DIALOGUES))
    names = [line[0] for line in score_lines(report)]
    assert {"weighted F1, %", "shift AUROC, %", "emotion calibration error, %"} <= set(names)
    assert not re.search(r"\bA[145]_?|58\.5|57\.7|MELD", told(report))
    assert re.fullmatch(r"\d+\.\d to \d+\.\d", score_lines(report)[0][2])


def test_few_dialogues_say_that_an_interval_needs_more() -> None:
    report = scored(answers(LEAST_DIALOGUES - 1))
    assert {line[2] for line in score_lines(report)} <= {"needs 10 dialogues", ""}
    assert "9 dialogues: an interval needs 10 at least." in remarks(report)
    assert any("9 dialogues: an interval needs 10" in said for said in summary(report))
    assert "(needs 10 dialogues)" in scores_table(report)
    assert report_data(report)["weighted_f1"]["low"] is not None  # for programs: as computed


@pytest.mark.parametrize("dialogues", [1, 2, 30])
@pytest.mark.parametrize("what", ["no pairs", "no shifts", "all abstain", "all alert"])
def test_a_person_never_reads_nan(dialogues: int, what: str) -> None:
    of = answers(dialogues, 0 if what == "no pairs" else 5)
    if what == "no shifts":
        of = replace(of, shifts=np.zeros_like(of.shifts))
    points = {"all abstain": Thresholds(1.0), "all alert": Thresholds(0.0, 0.0, 0.0)}
    report = scored(of, points.get(what, Thresholds()))
    assert not re.search(r"\bnan\b", told(report))
    assert (what == "no pairs") == any("No speaker has two" in said for said in remarks(report))


def test_a_difference_that_cannot_be_computed_has_no_numbers() -> None:
    nan = float("nan")
    row = difference_row(Difference("shift_auroc", nan, nan, nan, nan, nan, nan))
    assert row == ("shift AUROC, %", *("-",) * 5, "cannot be compared")


def test_the_front_matter_of_ones_own_set_claims_nothing() -> None:
    said = front_matter("calls", ())
    assert "license: unknown" in said
    assert "datasets" not in said and "language:" not in said
