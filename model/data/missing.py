"""Fill numbers that could not be measured with the mean of their column over the train split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from model.data.dataset import DataSet, Dialogue, Floats, Split
from model.interface import INPUTS


def filled(data: DataSet, stated: Mapping[str, Floats] = MappingProxyType({})) -> DataSet:
    """Return `data` without NaN: 0 in absent rows, the column's mean in present ones.

    The mean is the `stated` one of the modality, else that over the train split, else 0 (a column
    without a measured number).
    """
    means = {m: stated[m] if m in stated else _train_mean(data, m) for m in data.widths}
    cut: dict[Split, tuple[Dialogue, ...]] = {
        split: tuple(_filled(dialogue, means) for dialogue in dialogues)
        for split, dialogues in data.dialogues.items()
    }
    return replace(data, dialogues=cut)


def _train_mean(data: DataSet, modality: str) -> Floats:
    column = INPUTS.index(modality)
    rows = np.concatenate(
        [d.features[modality][d.present[:, column]] for d in data.split("train")]
    )  # [rows, width]
    measured = ~np.isnan(rows)
    total = np.where(measured, rows, 0).sum(axis=0, dtype=np.float64)
    mean: Floats = (total / np.maximum(measured.sum(axis=0), 1)).astype(np.float32)
    return mean


def _filled(dialogue: Dialogue, means: Mapping[str, Floats]) -> Dialogue:
    features = {}
    for modality, mean in means.items():
        values = dialogue.features[modality]
        present = dialogue.present[:, [INPUTS.index(modality)]]
        features[modality] = np.where(
            present, np.where(np.isnan(values), mean, values), np.float32(0)
        )
    return replace(dialogue, features=features)
