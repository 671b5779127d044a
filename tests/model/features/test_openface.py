"""Mean action units are those of the frames where the face was tracked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from model.data.extractors import ACTION_UNITS
from model.errors import DataError
from model.features.openface import mean_action_units

Frame = Mapping[str, object]


def written(
    folder: Path, *frames: Frame, space: str = " ", without: str = "", face: bool = False
) -> Path:
    columns = ["frame", "face_id"] if face else ["frame"]
    columns += [
        "confidence",
        "success",
        "AU28_c",
        *(f"{unit}_r" for unit in reversed(ACTION_UNITS)),
    ]
    columns = [column for column in columns if column != without]
    usual = {"face_id": 0, "confidence": 0.98, "success": 1, "AU28_c": 1, "frame": 1}
    lines = [", ".join(columns) if space else ",".join(columns)]
    lines += [
        ", ".join(
            str({**usual, **frame}.get(c, c[2:4].lstrip("0") if "_r" in c else 0)) for c in columns
        )
        for frame in frames
    ]
    path = folder / "clip.csv"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.mark.parametrize("space", [" ", ""])
def test_units_come_in_the_order_of_the_recipe_with_or_without_spaces(
    tmp_path: Path, space: str
) -> None:
    numbers = mean_action_units(written(tmp_path, {}, space=space))
    assert numbers.tolist() == [float(unit[2:]) for unit in ACTION_UNITS]
    assert len(numbers) == 17


def test_frames_without_a_sure_face_are_left_out(tmp_path: Path) -> None:
    frames: list[Frame] = [{"AU01_r": 1}, {"AU01_r": 3}, {"AU01_r": 100, "success": 0},
              {"AU01_r": 50, "confidence": 0.7}]  # fmt: skip
    path = written(tmp_path, *frames)
    assert mean_action_units(path)[0] == 2
    assert mean_action_units(path, confidence=0.5)[0] == 18


def test_a_clip_without_a_face_is_an_absent_vector(tmp_path: Path) -> None:
    clips: list[list[Frame]] = [[{"success": 0}], []]
    for frames in clips:
        assert np.isnan(mean_action_units(written(tmp_path, *frames))).all()


def test_misfits_name_file_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"clip\.csv lacks the columns AU45_r"):
        mean_action_units(written(tmp_path, {}, without="AU45_r"))
    with pytest.raises(DataError, match=r"clip\.csv, line 3: AU02_r is ' much', not a number"):
        mean_action_units(written(tmp_path, {}, {"AU02_r": "much"}))
    with pytest.raises(DataError, match="line 2: AU02_r is nan, not a finite"):
        mean_action_units(written(tmp_path, {"AU02_r": "nan"}))
    with pytest.raises(DataError, match=r"holds 2 faces \(0, 1\)"):
        mean_action_units(written(tmp_path, {}, {"face_id": 1}, face=True))
    with pytest.raises(DataError, match="no_such"):
        mean_action_units(tmp_path / "no_such.csv")
    short = written(tmp_path, {})
    short.write_text(short.read_text("utf-8") + "1, 0.9\n", "utf-8")
    with pytest.raises(DataError, match="line 3: success is '', not a number"):
        mean_action_units(short)
