"""Sentences of a card and a page on a model's best and worst classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.scoring.answers import Answers
from model.scoring.card import filled_card
from model.scoring.html_page import summary
from model.scoring.report import Report, score
from model.serving.calibration import Calibration, Thresholds

LABELS = ("calm", "glad", "mad")


def report_of(truth: Sequence[int], guess: Sequence[int]) -> Report:
    answers = Answers(
        emotion=5 * np.eye(3)[list(guess)],
        labels=np.array(truth),
        dialogue=np.arange(len(truth)),
        shift=np.empty((0, 9)),
        shifts=np.empty(0, np.int64),
        pair_dialogue=np.empty(0, np.int64),
        dialogues=len(truth),
    )
    return score(answers, Calibration(), Thresholds(), LABELS, resamples=10)


def card_of(report: Report, folder: Path) -> str:
    template = folder / "card.md"
    template.write_text("$how_good\n\n$limits", "utf-8")
    return filled_card(
        template, report, Thresholds(), data="calls", known=("en",), looks="looks: none."
    )


def test_a_class_is_called_rare_where_it_is_rare_and_recognised_poorly(tmp_path: Path) -> None:
    card = card_of(
        report_of([0] * 20 + [1] * 15 + [2] * 2, [0] * 20 + [0] * 15 + [0] * 2), tmp_path
    )
    assert "- Rare classes (mad) are recognised poorly" in card  # glad is poor, and not rare
    assert "looks: none." in card
    well = card_of(
        report_of([0] * 20 + [1] * 15 + [2] * 2, [0] * 20 + [1] * 15 + [2] * 2), tmp_path
    )
    assert "Rare" not in well


def test_a_class_that_dev_lacks_is_said_to_be_unknown(tmp_path: Path) -> None:
    card = card_of(report_of([0] * 4 + [1] * 4, [0] * 4 + [1] * 4), tmp_path)
    assert "Rare" not in card
    assert "nothing is known of how well they are recognised: mad." in card
    assert "F1 by class: calm 100.0, glad 100.0, mad (none in dev)." in card


def test_the_best_class_of_a_page_is_not_its_worst() -> None:
    perfect = " ".join(summary(report_of([0] * 4 + [1] * 4, [0] * 4 + [1] * 4)))
    assert "equally good at every emotion that occurs (F1 1.00)" in perfect
    assert "worst" not in perfect
    mixed = " ".join(summary(report_of([0] * 4 + [1] * 4, [0] * 4 + [1] * 3 + [0])))
    assert "best at calm (F1 0.89) and worst at glad (F1 0.86, 4 utterances)" in mixed
