"""`emotrack accuracy --only` prints the figures of the rows that were asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.scoring.answers import Answers
from model.serving.calibration import Calibration
from model.study.rows import ROWS
from model.study.run import save_answers
from stream.cli.accuracy import accuracy

LABELS = np.array([0, 1, 0, 0])


def test_only_prints_the_tables_of_its_rows_and_writes_no_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row that was trained printed nothing: its figures were in arrays alone."""
    (row,) = (row for row in ROWS if row.name == "majority")
    emotion = np.log([[0.9, 0.1]] * 4)  # three of four are right
    pairs = np.log([[0.4, 0.2, 0.2, 0.2]] * 2)
    answers = Answers(
        emotion, LABELS, np.array([0, 0, 1, 1]), pairs, np.array([1, 0]), np.array([0, 1]), 2
    )
    for split in ("dev", "test"):
        path = tmp_path / row.run_name(0) / f"{split}.npz"
        path.parent.mkdir(exist_ok=True)
        save_answers(path, answers, Calibration())
    ledger, page = tmp_path / "ledger.csv", tmp_path / "page.md"
    accuracy(data=tmp_path, only=["majority"], runs=tmp_path, page=page, ledger=ledger)
    printed = capsys.readouterr().out
    assert "Test:" in printed and "Dev:" in printed
    assert printed.count("**majority**: always neutral") == 2
    assert printed.count("75.0 (") == 2, "the accuracy, on each split"
    assert not page.exists()
