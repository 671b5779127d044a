"""Numbers that could not be measured: the mean of their column over the train split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.data.dataset import DataSet, Dialogue, Floats, Split
from model.interface import INPUTS

NOTHING_STATED: Final[Mapping[str, Floats]] = MappingProxyType({})


def filled(data: DataSet, stated: Mapping[str, Floats] = NOTHING_STATED) -> DataSet:
    """`data` with no NaN left: absent rows are 0, a hole in a present one is its column's mean.

    The mean is the `stated` one of the modality, else that over the train split, else 0 (a column
    nobody measured).
    """
    means = {
        modality: stated[modality] if modality in stated else _train_mean(data, modality)
        for modality in data.widths
    }
    cut: dict[Split, tuple[Dialogue, ...]] = {
        split: tuple(_whole(dialogue, means) for dialogue in dialogues)
        for split, dialogues in data.dialogues.items()
    }
    return replace(data, dialogues=cut)


def present_rows(data: DataSet, split: Split, modality: str) -> Floats:
    """[rows, width]: the modality's vectors of a split where it is present, in order."""
    column = INPUTS.index(modality)
    found: Sequence[Floats] = [
        d.features[modality][d.present[:, column]] for d in data.split(split)
    ]
    return np.concatenate(found)


def _train_mean(data: DataSet, modality: str) -> Floats:
    rows = present_rows(data, "train", modality)
    measured = ~np.isnan(rows)
    total = np.where(measured, rows, 0).sum(axis=0, dtype=np.float64)
    mean: Floats = (total / np.maximum(measured.sum(axis=0), 1)).astype(np.float32)
    return mean


def _whole(dialogue: Dialogue, means: Mapping[str, Floats]) -> Dialogue:
    vectors = {
        modality: _row_by_row(values, dialogue.present[:, [INPUTS.index(modality)]], mean)
        for modality, mean in means.items()
        for values in [dialogue.features[modality]]
    }
    return replace(dialogue, features=vectors)


def _row_by_row(values: Floats, present: NDArray[np.bool_], mean: Floats) -> Floats:
    return np.where(present, np.where(np.isnan(values), mean, values), np.float32(0))
