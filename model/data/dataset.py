"""Conversations with labels, in memory; label sets; missing values.

`docs/data.md` describes the folder that `read_data_set` reads and `write_data_set` writes. Needs
numpy only; nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from model.interface import INPUTS

Split = Literal["train", "dev", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "dev", "test")
UNLABELLED: Final = -1
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One conversation of T utterances in spoken order."""

    dialogue_id: str
    utterance_ids: tuple[str, ...]  # [T]
    speakers: tuple[str, ...]  # [T]
    sentences: tuple[str, ...]  # [T], "" where only vectors are known
    labels: NDArray[np.int64]  # [T], or UNLABELLED
    features: Mapping[str, Floats]  # modality -> [T, width]; absent rows are 0
    present: NDArray[np.bool_]  # [T, 4] in the order of INPUTS

    def __len__(self) -> int:
        return len(self.utterance_ids)


@dataclass(frozen=True, slots=True)
class DataSet:
    """A whole set in memory. A split that does not exist is empty."""

    name: str
    labels: tuple[str, ...]
    widths: Mapping[str, int]  # modality -> vector width, of those the set has
    extractors: Mapping[str, str]  # modality -> recipe its vectors come from
    dialogues: Mapping[Split, tuple[Dialogue, ...]]
    sentiment: Mapping[str, str] = field(default_factory=dict)  # of labels, where it is stated
    note: str = ""  # changes by `model.data.splits` since the set was read, for display

    def split(self, name: Split) -> tuple[Dialogue, ...]:
        return self.dialogues[name]


def column_statistics(dialogues: Sequence[Dialogue]) -> dict[str, tuple[Floats, Floats]]:
    """Return mean and standard deviation of each column over the rows with the modality."""
    statistics: dict[str, tuple[Floats, Floats]] = {}
    for i, modality in enumerate(INPUTS):
        if modality not in dialogues[0].features:
            continue
        rows = np.concatenate([d.features[modality][d.present[:, i]] for d in dialogues])
        if len(rows) == 0:
            continue
        std = rows.std(0, dtype=np.float64)
        statistics[modality] = (
            rows.mean(0, dtype=np.float64).astype(np.float32),
            np.where(std > 0, std, 1.0).astype(np.float32),
        )
    return statistics


def columns_of(
    dialogue: Dialogue, names: Sequence[str], widths: Mapping[str, int]
) -> tuple[dict[str, Floats], NDArray[np.bool_]]:
    """Return vectors [T, width] of the named inputs, and which are present: [T, inputs].

    An input that the set or the model (`widths`) lacks never is.
    """
    columns, present = {}, dialogue.present[:, [INPUTS.index(name) for name in names]]
    for i, name in enumerate(names):
        columns[name] = np.zeros((len(dialogue), widths[name]), np.float32)
        if name in dialogue.features and widths[name]:
            columns[name] = dialogue.features[name]
        else:
            present[:, i] = False
    return columns, present


def label_counts(dialogues: Sequence[Dialogue], classes: int) -> NDArray[np.int64]:
    """Return the number of utterances of each label, [C]; unlabelled ones do not count."""
    labels = np.concatenate([d.labels for d in dialogues])
    return np.bincount(labels[labels != UNLABELLED], minlength=classes)


def speaker_pairs(dialogue: Dialogue) -> NDArray[np.int64]:
    """Return (previous, current) indices of a speaker's consecutive utterances, [P, 2]."""
    last: dict[str, int] = {}
    pairs = []
    for i, speaker in enumerate(dialogue.speakers):
        if speaker in last:
            pairs.append((last[speaker], i))
        last[speaker] = i
    return np.array(pairs, np.int64).reshape(-1, 2)


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


# Label sets, in the order of the shipped weights and of the published code.
MELD_LABELS: Final = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
IEMOCAP_LABELS: Final = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
SENTIMENTS: Final = ("positive", "neutral", "negative")
# Surprise is of either sentiment; neutral raises no false alarm.
_LABELS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "positive": ("joy", "happy", "excited", "joyful", "peaceful", "powerful"),
    "neutral": ("neutral", "surprise"),
    "negative": ("fear", "sadness", "disgust", "anger", "sad", "angry", "frustrated", "mad",
                 "scared"),
}  # fmt: skip
_KNOWN: Final[Mapping[str, str]] = {
    label: sentiment for sentiment, names in _LABELS_OF.items() for label in names
}


def sentiment_of(
    labels: Sequence[str], stated: Mapping[str, str] = MappingProxyType({})
) -> dict[str, str]:
    """Map each label to its sentiment: the stated one, else the usual one, else neutral."""
    return {label: stated.get(label) or _KNOWN.get(label.lower(), "neutral") for label in labels}


def known_sentiment(label: str) -> bool:
    """Return whether a label has a usual sentiment."""
    return label.lower() in _KNOWN


def checked_sentiment(labels: Sequence[str], chosen: Mapping[str, str]) -> Mapping[str, str]:
    """Return the chosen sentiment of each label, else the usual one. Raises ValueError."""
    if len(labels) < 2 or len(set(labels)) != len(labels):
        raise ValueError(f"labels must be two or more different names, not {labels!r}")
    if chosen and set(chosen) != set(labels):
        raise ValueError("sentiment must name each label once")
    return chosen or sentiment_of(tuple(labels))
