"""Pictures are PNGs that show what they are given; whether they please is looked at by people."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from model.scoring.answers import Answers
from model.scoring.pictures import class_picture, confusion_picture, report_pictures
from model.scoring.report import Report, score
from model.serving.calibration import Calibration, Thresholds
from model.training.learning_curves import learning_curves
from model.training.progress import Epoch

LABELS = ("neutral", "surprise & awe", "anger")
HISTORY = [Epoch(1, 2.0, 1.5, 0.40), Epoch(2, 1.5, 1.2, 0.55), Epoch(3, 1.2, 1.3, 0.50)]


def made_up(pairs: int = 60) -> Report:
    rng = np.random.default_rng(0)
    answers = Answers(
        emotion=rng.normal(size=(90, 3)),
        labels=rng.integers(0, 3, 90),
        dialogue=np.repeat(np.arange(9), 10),
        shift=rng.normal(size=(pairs, 9)),
        shifts=rng.integers(0, 9, pairs),
        pair_dialogue=np.arange(pairs) % 9,
        dialogues=9,
    )
    calibration, points = Calibration(1.3, 0.8, "dev"), Thresholds(0.4, 0.7, 0.6)
    return score(answers, calibration, points, LABELS, resamples=20)


def pixels(png: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    found: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = image.imread(io.BytesIO(png))
    return found


@pytest.mark.slow
def test_every_picture_is_a_png_on_white_with_heading_and_caption() -> None:
    pictures = report_pictures(made_up())
    names = [p.name for p in pictures]
    assert len(set(names)) == len(names) == 6
    for picture in pictures:
        shown = pixels(picture.png)
        assert min(shown.shape[:2]) > 300
        assert (shown[0, 0, :3] == 1).all()
        assert shown.std() > 0.02  # not an empty page
        assert picture.heading
        assert picture.caption.endswith(".")


def test_other_numbers_give_another_picture_and_equal_ones_the_same() -> None:
    report = made_up()
    assert confusion_picture(report) == confusion_picture(made_up())
    other = replace(report, confusion=report.confusion[::-1].copy())
    assert confusion_picture(other) != confusion_picture(report)
    assert class_picture(replace(report, classes=report.classes[:2])) != class_picture(report)


def test_a_set_without_pairs_has_no_shift_pictures() -> None:
    names = [p.name for p in report_pictures(made_up(pairs=0))]
    assert names == ["confusion", "classes", "emotion-reliability", "risk-coverage"]


@pytest.mark.parametrize("epochs", [1, 3])
def test_learning_curves_are_written_whole(epochs: int, tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    learning_curves(HISTORY[:epochs], path)
    assert [p.name for p in tmp_path.iterdir()] == ["curves.png"]
    assert pixels(path.read_bytes()).std() > 0.02


def test_learning_curves_that_cannot_be_written_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        learning_curves(HISTORY, tmp_path / "file" / "curves.png")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_drawing_needs_no_display_and_importing_no_matplotlib() -> None:
    code = "import sys, model.scoring.pictures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0
    report_pictures(made_up())
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.slow
def test_a_matrix_of_many_labels_stays_a_picture_of_usual_size() -> None:
    """One of 200 labels with its numbers had 13,000 pixels a side."""
    few = made_up()
    classes = tuple(replace(few.classes[0], label=f"label {i}") for i in range(200))
    many = replace(few, classes=classes, confusion=np.ones((200, 200), np.int64))
    assert max(pixels(confusion_picture(many)).shape) < 5_000
