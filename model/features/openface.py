"""Seventeen mean action-unit intensities of a clip, from its OpenFace CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from model.data.dataset import Floats
from model.data.extractors import ACTION_UNITS
from model.errors import DataError

CONFIDENCE: Final = 0.8  # least tracking confidence of a frame that counts
NEEDED: Final = ("success", "confidence", *(f"{unit}_r" for unit in ACTION_UNITS))


def mean_action_units(path: Path, confidence: float = CONFIDENCE) -> Floats:
    """Return [17] in the order of `model.data.extractors.ACTION_UNITS`, 0 to 5.

    Means over the frames with success 1 and at least `confidence`; all NaN, which is an absent
    vector, where there is no such frame. Raises `DataError` naming file, line and column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            # OpenFace writes a space before the names
            columns = {column.strip(): i for i, column in enumerate(next(reader, []))}
            if missing := [column for column in NEEDED if column not in columns]:
                raise DataError(
                    f"{path} lacks the columns {', '.join(missing)}: is it a CSV of OpenFace's "
                    "FeatureExtraction with action units (-aus)?"
                )
            wanted = (*NEEDED, "face_id") if "face_id" in columns else NEEDED
            places = {column: columns[column] for column in wanted}
            frames = [_frame(path, reader.line_num, row, places) for row in reader if row]
    except (OSError, UnicodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    table = np.array(frames, np.float64).reshape(-1, len(places))
    faces = sorted(set(table[:, -1].tolist())) if "face_id" in places else []
    if len(faces) > 1:
        raise DataError(
            f"{path} holds {len(faces)} faces ({', '.join(f'{face:g}' for face in faces)}): give "
            "a file of the speaker's face alone"
        )
    tracked = table[(table[:, 0] == 1) & (table[:, 1] >= confidence), 2 : len(NEEDED)]
    if not len(tracked):
        return np.full(len(ACTION_UNITS), np.nan, np.float32)
    mean: Floats = tracked.mean(axis=0).astype(np.float32)
    return mean


def _frame(path: Path, line: int, row: Sequence[str], places: Mapping[str, int]) -> list[float]:
    numbers = []
    for column, place in places.items():
        cell = row[place] if place < len(row) else ""
        try:
            numbers.append(float(cell))
        except ValueError:
            raise DataError(f"{path}, line {line}: {column} is {cell!r}, not a number") from None
        if not np.isfinite(numbers[-1]):
            raise DataError(f"{path}, line {line}: {column} is {cell.strip()}, not a finite number")
    return numbers
