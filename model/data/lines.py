"""The dialogues of a data set, line by line: speakers, sentences, labels and rows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.data.arrays import json_objects
from model.data.dataset import SPLITS, UNLABELLED, Dialogue, Split
from model.errors import DataError


def dialogue_lines(
    path: Path, labels: Sequence[str], present: NDArray[np.bool_]
) -> Iterator[tuple[Split, Dialogue, NDArray[np.int64]]]:
    """Yield (split, dialogue without its vectors, their rows [T]) of each line.

    Raises `DataError` naming the line and the utterance.
    """
    owners: dict[int, str] = {}  # of each row, the utterance that uses it
    dialogues: dict[tuple[str, str], int] = {}  # -> line
    for number, line in json_objects(path):
        place = f"{path}, line {number}"
        value = line.get("split")
        if value not in SPLITS:
            raise DataError(f"{place}: split {value!r} is none of {', '.join(SPLITS)}")
        split: Split = value
        dialogue_id = _name(place, "dialogue_id", line.get("dialogue_id"))
        before = dialogues.setdefault((split, dialogue_id), number)
        if before != number:
            raise DataError(
                f"{place}: dialogue {dialogue_id!r} of {split} is already line {before}"
            )
        utterances = line.get("utterances")
        dialogue, rows = _dialogue(place, dialogue_id, utterances, labels, present, owners)
        yield split, dialogue, rows


def _dialogue(
    place: str,
    dialogue_id: str,
    utterances: Any,
    names: Sequence[str],
    present: NDArray[np.bool_],
    owners: dict[int, str],
) -> tuple[Dialogue, NDArray[np.int64]]:
    if not isinstance(utterances, list) or not utterances:
        raise DataError(f"{place}: dialogue {dialogue_id!r} has no utterances")
    ids: dict[str, None] = {}
    speakers, sentences, labels, rows = [], [], [], []
    for i, utterance in enumerate(utterances):
        here = f"{place}, utterance {i}"
        if not isinstance(utterance, dict):
            raise DataError(f"{here}: {type(utterance).__name__}, expected an object {{…}}")
        uid = _name(here, "uid", utterance.get("uid", i))
        if uid in ids:
            raise DataError(
                f"{here}: utterance id {uid!r} is used twice in dialogue {dialogue_id!r}"
            )
        ids[uid] = None
        rows.append(_row(owners, len(present), here, utterance.get("row")))
        speakers.append(_name(here, "speaker", utterance.get("speaker")))
        sentences.append(_sentence(present, here, utterance.get("text"), rows[-1]))
        labels.append(_label(names, here, utterance))
    dialogue = Dialogue(
        dialogue_id,
        tuple(ids),
        tuple(speakers),
        tuple(sentences),
        np.array(labels, np.int64),
        features={},
        present=present[rows],
    )
    return dialogue, np.array(rows, np.int64)


def _name(place: str, field_name: str, value: Any) -> str:
    """Return an id or a speaker as text: a non-empty text, or a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place}: `{field_name}` is {value!r}, expected a name")
    return value


def _row(owners: dict[int, str], rows: int, here: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < rows:
        raise DataError(f"{here}: row {value!r} is none of the arrays' {rows} rows (0..{rows - 1})")
    before = owners.setdefault(value, here)
    if before is not here:
        raise DataError(f"{here}: row {value} is already that of {before}")
    return value


def _sentence(present: NDArray[np.bool_], here: str, value: Any, row: int) -> str:
    if value is not None and not isinstance(value, str):
        raise DataError(f"{here}: `text` is {value!r}, expected a sentence or null")
    if not (value and value.strip()) and not present[row].any():
        raise DataError(
            f"{here}: neither a sentence nor a vector (row {row} is absent in every array): leave "
            "the utterance out, or give its text"
        )
    return value or ""


def _label(labels: Sequence[str], here: str, utterance: dict[str, Any]) -> int:
    """Return the index of `label` (index, name, or null and -1: unlabelled), else of `emotion`."""
    value = utterance["label"] if "label" in utterance else utterance.get("emotion")
    if value is None or (value == UNLABELLED and not isinstance(value, bool)):
        return UNLABELLED
    if isinstance(value, str):
        if value not in labels:
            raise DataError(f"{here}: unknown label {value!r}, the meta file has {list(labels)}")
        return labels.index(value)
    whole = isinstance(value, int | float) and not isinstance(value, bool)
    if not whole or not math.isfinite(value) or value != int(value):
        raise DataError(
            f"{here}: label {value!r} is neither an index nor a name (null: nobody said)"
        )
    if not 0 <= value < len(labels):
        raise DataError(f"{here}: label {value} is none of 0..{len(labels) - 1} ({list(labels)})")
    label, emotion = int(value), utterance.get("emotion")
    # a second name for the label is fine ("hap" of happy), another label's name is not
    if emotion in labels and labels.index(emotion) != label:
        raise DataError(
            f"{here}: label {label} is {labels[label]!r}, but emotion says {emotion!r} "
            f"({labels.index(emotion)})"
        )
    return label
