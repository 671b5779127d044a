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
    without a measured number). A dialogue may lack a modality that is absent in all its rows.
    """
    dialogues = {split: list(part) for split, part in data.dialogues.items()}
    for modality in data.widths:
        column = INPUTS.index(modality)
        if modality in stated:
            mean = stated[modality]
        else:
            train = [d for d in data.split("train") if d.present[:, column].any()]
            found = [d.features[modality][d.present[:, column]] for d in train]
            rows = np.concatenate([np.zeros((0, data.widths[modality]), np.float32), *found])
            measured = ~np.isnan(rows)
            total = np.where(measured, rows, 0).sum(axis=0, dtype=np.float64)
            mean = (total / np.maximum(measured.sum(axis=0), 1)).astype(np.float32)
        for part in dialogues.values():
            for i, d in enumerate(part):
                values = d.features.get(modality, np.zeros_like(mean))
                values = np.where(np.isnan(values), mean, values)
                values = np.where(d.present[:, [column]], values, np.float32(0))
                part[i] = replace(d, features={**d.features, modality: values})
    cut: dict[Split, tuple[Dialogue, ...]] = {s: tuple(part) for s, part in dialogues.items()}
    return replace(data, dialogues=cut)
