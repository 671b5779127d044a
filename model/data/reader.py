"""Read a data-set folder as docs/data.md describes it, and refuse any other content.

Audio and video are the *raw* columns where the set has them, as the extractors publish them; the
checkpoint normalises. A column that is NaN inside a present vector (Praat finds no pitch in a
whisper) becomes the mean of that column over the train split, because NaN never crosses the wire.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.data.arrays import (
    Arrays,
    dialogues_file,
    matrix,
    measured,
    meta_numbers,
    meta_sentiment,
    read_arrays,
    read_meta,
    same_rows,
    the_set_in,
)
from model.data.dataset import SPLITS, DataSet, Dialogue, Floats, Split, filled
from model.data.extractors import recipes
from model.data.lines import dialogue_lines
from model.errors import DataError
from model.interface import INPUTS

KEYS: Final = {"text": ("text",), "audio": ("audio",), "video": ("visual", "video")}


@dataclass(frozen=True, slots=True)
class _Columns:
    """One modality as in its file: NaN where nothing was measured."""

    key: str  # the array's name
    values: Floats  # [rows, width]
    present: NDArray[np.bool_]  # [rows]
    scaled: bool  # z-scored by the set's author


def read_data_set(folder: Path, name: str | None = None) -> DataSet:
    """Read `<name>_*` from `folder`; the only set there (or MELD of several) when `name` is None.

    Raises `DataError` for a set that does not follow docs/data.md.
    """
    name = name or the_set_in(folder)
    meta_path = folder / f"{name}_meta.json"
    meta = read_meta(meta_path)
    columns, rows = _columns(folder, name)
    path = dialogues_file(folder, name)
    present = np.zeros((rows, len(INPUTS)), np.bool_)
    for modality, column in columns.items():
        present[:, INPUTS.index(modality)] = column.present
    dialogues: dict[Split, list[Dialogue]] = {split: [] for split in SPLITS}
    for split, dialogue, numbers in dialogue_lines(path, meta["labels"], present):
        features = {modality: column.values[numbers] for modality, column in columns.items()}
        dialogues[split].append(replace(dialogue, features=features))
    if not dialogues["train"]:
        raise DataError(f"{path}: no dialogue has the split train: there is nothing to learn from")
    widths = {m: c.values.shape[1] for m, c in columns.items()}
    data = DataSet(
        name=name,
        labels=tuple(meta["labels"]),
        widths=widths,
        extractors=recipes(name, meta, widths, [m for m, c in columns.items() if c.scaled]),
        dialogues={split: tuple(part) for split, part in dialogues.items()},
        sentiment=meta_sentiment(meta_path, meta),
    )
    means = {  # of raw columns
        modality: meta_numbers(meta_path, meta, key, column.values.shape[1])
        for modality, column in columns.items()
        for key in [column.key.removesuffix("_raw") + "_mean"]
        if key in meta and not column.scaled
    }
    return filled(data, means)


def _columns(folder: Path, name: str) -> tuple[dict[str, _Columns], int]:
    """Return the modalities of the set, and its number of rows."""
    path = folder / f"{name}_features.npz"
    arrays = read_arrays(path)
    known = [
        f"{key}{end}" for keys in KEYS.values() for key in keys for end in ("", "_raw", "_mask")
    ]
    there = [key for key in (*known, "label") if key in arrays]
    if not there:
        raise DataError(
            f"{path} holds none of text, audio, visual, label (it has: {', '.join(arrays) or '-'})"
        )
    rows = same_rows(path, arrays, there)
    columns = {}
    for modality, keys in KEYS.items():
        found = [key for key in keys if key in arrays or f"{key}_raw" in arrays]
        if len(found) > 1:
            raise DataError(f"{path} holds both {' and '.join(found)}: one of them is {modality}")
        if found:
            columns[modality] = _column(path, found[0], arrays, rows)
    persona = folder / f"{name}_persona.npz"
    if persona.is_file():
        columns["persona"] = _persona(persona, path, rows)
    return columns, rows


def _column(path: Path, key: str, arrays: Arrays, rows: int) -> _Columns:
    scaled = f"{key}_raw" not in arrays and key != "text"
    stored = f"{key}_raw" if f"{key}_raw" in arrays else key
    values = matrix(path, stored, arrays[stored])
    present = measured(values)
    if f"{key}_mask" in arrays:
        mask = arrays[f"{key}_mask"]
        if mask.shape != (rows,) or mask.dtype.kind not in "biu":
            raise DataError(
                f"{path}: `{key}_mask` has shape {mask.shape} of {mask.dtype}, expected ({rows},) "
                "of bool"
            )
        present &= mask.astype(np.bool_)
    elif scaled:
        present &= values.any(axis=1)  # "missing = 0" after z-scoring; NaN counts as present
    return _Columns(stored, values, present, scaled)


def _persona(path: Path, features: Path, rows: int) -> _Columns:
    arrays = read_arrays(path)
    if "persona" not in arrays:
        raise DataError(f"{path} holds no array `persona` (it has: {', '.join(arrays) or '-'})")
    values = matrix(path, "persona", arrays["persona"])
    if len(values) != rows:
        raise DataError(f"{path}: `persona` has {len(values)} rows, {features.name} has {rows}")
    return _Columns("persona", values, measured(values), scaled=False)
