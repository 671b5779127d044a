"""Write a data set in the layout of docs/data.md: under temporary names first, then renamed."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from model.atomic_files import write_whole
from model.data.arrays import measured, npz
from model.data.dataset import (
    SPLITS,
    UNLABELLED,
    DataSet,
    Dialogue,
    Floats,
    Split,
    column_statistics,
)
from model.errors import DataError
from model.interface import INPUTS

Ordered = Sequence[tuple[Split, Dialogue]]
ARRAY_NAMES: Final = {"text": "text", "audio": "audio_raw", "video": "visual_raw"}


def write_data_set(folder: Path, data: DataSet) -> None:
    """Write `data` so that `read_data_set` returns it; replace a set of its name whole.

    Equal sets give equal bytes. Raises `DataError`, then nothing is written.
    """
    order = [(split, dialogue) for split in SPLITS for dialogue in data.split(split)]
    if not data.split("train"):
        raise DataError(f"{data.name} has no train dialogue: there is nothing to write")
    files = {
        f"{data.name}_features.npz": npz(_features(data, order)),
        f"{data.name}_dialogues.jsonl.gz": _lines(order, data.labels),
    }
    if "persona" in data.widths:
        files[f"{data.name}_persona.npz"] = npz({"persona": _columns(order, "persona")})
    files[f"{data.name}_meta.json"] = _meta(data)  # last: a folder without it holds no set
    stale = {f"{data.name}_persona.npz", f"{data.name}_dialogues.jsonl"} - files.keys()
    write_whole(folder, files, remove=stale)


def _features(data: DataSet, order: Ordered) -> dict[str, NDArray[Any]]:
    labels = np.concatenate([d.labels for _, d in order])
    bad = (labels < UNLABELLED) | (labels >= len(data.labels))
    if bad.any() or len(data.labels) > np.iinfo(np.int16).max:
        worst = labels[bad][0] if bad.any() else len(data.labels)
        raise DataError(
            f"{data.name}: label {worst} does not fit {len(data.labels)} labels in int16"
        )
    arrays: dict[str, NDArray[Any]] = {
        "label": labels.astype(np.int16),
        "split": np.concatenate([np.full(len(d), SPLITS.index(s), np.int8) for s, d in order]),
        "dialogue": np.concatenate(
            [np.full(len(d), i, np.int32) for i, (_, d) in enumerate(order)]
        ),
    }
    for modality, key in ARRAY_NAMES.items():
        if modality in data.widths:
            values = _columns(order, modality)
            with np.errstate(over="ignore"):
                half = values.astype(np.float16)
            exact = np.array_equal(half.astype(np.float32), values, equal_nan=True)
            arrays[key] = half if exact and modality == "text" else values
            arrays[f"{key.removesuffix('_raw')}_mask"] = measured(values)
    return arrays


def _columns(order: Ordered, modality: str) -> Floats:
    """Return [rows, width], NaN where the modality is absent."""
    values = np.concatenate([d.features[modality] for _, d in order])
    present = np.concatenate([d.present[:, INPUTS.index(modality)] for _, d in order])
    return np.where(present[:, None], values, np.float32(np.nan))


def _meta(data: DataSet) -> bytes:
    meta: dict[str, Any] = {
        "labels": list(data.labels),
        "splits": list(SPLITS),
        "extractors": dict(data.extractors),
    }
    if data.sentiment:
        meta["sentiment"] = dict(data.sentiment)
    for modality, (mean, deviation) in column_statistics(data.split("train")).items():
        if modality in ("audio", "video"):
            key = ARRAY_NAMES[modality].removesuffix("_raw")
            meta |= {f"{key}_mean": mean.tolist(), f"{key}_std": deviation.tolist()}
    return json.dumps(meta, ensure_ascii=False, indent=1).encode()


def _lines(order: Ordered, labels: Sequence[str]) -> bytes:
    row = 0
    lines = []
    for split, dialogue in order:
        utterances = []
        for i, label in enumerate(dialogue.labels.tolist()):
            fields = {"row": row, "uid": dialogue.utterance_ids[i]}
            fields |= {"speaker": dialogue.speakers[i], "text": dialogue.sentences[i]}
            if label != UNLABELLED:
                fields |= {"label": label, "emotion": labels[label]}
            utterances.append(fields)
            row += 1
        line = {"dialogue_id": dialogue.dialogue_id, "split": split, "utterances": utterances}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return gzip.compress("".join(lines).encode(), mtime=0)
