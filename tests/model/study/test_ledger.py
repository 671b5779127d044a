"""The ledger of looks at a test split."""

from __future__ import annotations

import csv
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from model.errors import LedgerError
from model.scoring.answers import Answers
from model.scoring.bootstrap import Interval
from model.scoring.report import Report, score
from model.serving.calibration import Calibration, Thresholds
from model.study.ledger import COLUMNS, check_ledger, note_look, sentence_on_looks

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BEFORE = (
    "date,checkpoint,set,utterances,pairs,accuracy,wf1,wf1_low,wf1_high,"
    "shift_auroc,shift_c2_wf1,emotion_ece,shift_ece"
)


@pytest.fixture(scope="module")
def report() -> Report:
    answers = Answers(
        emotion=np.eye(2)[[0, 1, 1, 0]],
        labels=np.array([0, 1, 0, 0]),
        dialogue=np.array([0, 0, 1, 1]),
        shift=np.eye(4)[[1, 0]],
        shifts=np.array([1, 0]),
        pair_dialogue=np.array([0, 1]),
        dialogues=2,
    )
    return score(answers, Calibration(), Thresholds(), ("a", "b"), resamples=10)


def looks(ledger: Path) -> list[dict[str, str]]:
    with ledger.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_look_is_a_line(tmp_path: Path, report: Report) -> None:
    ledger = tmp_path / "ledger.csv"
    note_look(ledger, "abc", "meld", report, now=NOW)
    note_look(ledger, "def", "meld", report, now=NOW)
    one, two = looks(ledger)
    assert tuple(one) == COLUMNS
    assert (one["date"], one["checkpoint"]) == ("2026-01-02T03:04:05+00:00", "abc")
    assert (one["accuracy"], one["shift_auroc"]) == ("0.7500", "1.0000")
    assert (two["checkpoint"], two["utterances"], two["pairs"]) == ("def", "4", "2")
    assert [p.name for p in tmp_path.iterdir()] == ["ledger.csv"]


def test_a_ledger_of_before_keeps_its_lines_and_gains_columns_at_the_end(
    tmp_path: Path, report: Report
) -> None:
    ledger = tmp_path / "ledger.csv"
    ledger.write_text(f"{BEFORE}\n2025,old,meld,2610,1864,.5,.5,.4,.6,.7,.3,.04,.03\n", "utf-8")
    note_look(ledger, "new", "meld", report, now=NOW)
    header, old, _ = ledger.read_text("utf-8").splitlines()
    assert header.startswith(f"{BEFORE},macro_f1")
    assert old.startswith("2025,old,meld,2610,1864,.5,.5,.4,.6,.7,.3,.04,.03,")
    assert looks(ledger)[0]["macro_f1"] == ""
    assert looks(ledger)[1]["macro_f1"] == f"{report.macro_f1.value:.4f}"


def test_a_score_that_there_is_not_is_an_empty_cell(tmp_path: Path, report: Report) -> None:
    ledger = tmp_path / "ledger.csv"
    no_shift = replace(report, shift_auroc=Interval(float("nan"), float("nan"), float("nan")))
    note_look(ledger, "abc", "calls", no_shift, now=NOW)
    assert looks(ledger)[0]["shift_auroc"] == ""
    assert "nan" not in ledger.read_text("utf-8")


def test_the_committed_ledger_can_be_continued() -> None:
    check_ledger(Path(__file__).parents[3] / "docs" / "test-ledger.csv")


def test_a_file_that_is_no_ledger_is_not_overwritten(tmp_path: Path, report: Report) -> None:
    other = tmp_path / "notes.csv"
    other.write_text("name,age\nsomebody,3\n", "utf-8")
    for attempt in (check_ledger, lambda path: note_look(path, "x", "meld", report, now=NOW)):
        with pytest.raises(LedgerError, match="no ledger"):
            attempt(other)
    assert other.read_text("utf-8") == "name,age\nsomebody,3\n"


def test_a_ledger_that_cannot_be_written_is_refused_before_the_look(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="--ledger"):
        check_ledger(tmp_path / "nowhere" / "ledger.csv")
    with pytest.raises(LedgerError, match="--ledger"):
        check_ledger(tmp_path)


def test_the_sentence_on_looks_counts_them(tmp_path: Path, report: Report) -> None:
    ledger = tmp_path / "ledger.csv"
    assert "0 so far" in sentence_on_looks(ledger, "dev", "abc")
    for checkpoint in ("abc", "other", "abc"):
        note_look(ledger, checkpoint, "meld", report, now=NOW)
    assert "number 3 there, number 2 of this checkpoint" in sentence_on_looks(ledger, "test", "abc")
    assert "3 so far, 2 of this checkpoint" in sentence_on_looks(ledger, "dev", "abc")
