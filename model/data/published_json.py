"""MELD and IEMOCAP from the JSON and feature files that the published code of HRG-SSA reads.

A folder of that code holds

========================== =====================================================================
`{train,dev,test}_data.json` number of turns -> dialogue -> utterance -> fields; case of the names
                             does not matter. Read are `utterance` ("speaker: words"), `speaker`,
                             `emotion` and `feature_key`; the rest follows from these
`audio_features_NAME.pkl`    split -> key -> vector [n] or frames [t, n]; for HuBERT the key ends in
                             `_NAME`
`video_features.pkl`         split -> key -> vector
========================== =====================================================================

Frames are averaged. An utterance without a vector lacks that modality; without its feature file the
set lacks it. Pickles are read by `model.data.safe_pickle`: nothing is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from model.data.dataset import (
    IEMOCAP_LABELS,
    MELD_LABELS,
    SPLITS,
    DataSet,
    Dialogue,
    Floats,
    Split,
    filled,
)
from model.data.published_pickles import Corpus
from model.data.safe_pickle import load_pickle
from model.data.splits import with_dev
from model.errors import DataError
from model.interface import INPUTS

# Our label sets, and the words of the files for them in the same order.
_WORDS: Final[Mapping[Corpus, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "meld": (MELD_LABELS, MELD_LABELS),
    "iemocap": (
        IEMOCAP_LABELS,
        ("happiness", "sadness", "neutral", "anger", "excitement", "frustration"),
    ),
}
_FIELDS: Final = ("utterance", "speaker", "emotion", "feature_key")


@dataclass(frozen=True, slots=True)
class _Features:
    """Vectors of one modality: split -> key -> numbers."""

    path: Path
    recipe: str
    suffix: str  # of the keys
    by_split: Mapping[str, Mapping[str, Any]]

    def vector(self, split: Split, key: str) -> Floats | None:
        """Return an utterance's vector [n], frames averaged, or None. Raises `DataError`."""
        by_key, key = self.by_split.get(split, {}), key + self.suffix
        # the published code puts the whole JSON in lower case, but not these keys
        numbers = by_key.get(key, by_key.get(key.lower()))
        if numbers is None:
            return None
        where = f"{self.path}, {split}, {key!r}"
        try:
            values = np.asarray(numbers, np.float32)
        except (TypeError, ValueError) as error:
            raise DataError(f"{where} holds no numbers: {error}") from error
        if values.ndim not in (1, 2) or 0 in values.shape:
            raise DataError(f"{where} has shape {values.shape}, expected [n] or [frames, n]")
        if not np.isfinite(values).all():
            raise DataError(f"{where} holds NaN or Inf")
        mean: Floats = values if values.ndim == 1 else values.mean(axis=0, dtype=np.float32)
        return mean


def read_original_json(
    corpus: Corpus, folder: Path, *, audio: str = "opensmile", seed: int = 0
) -> DataSet:
    """Read the corpus as a data set of sentences, with audio and video where there are files.

    `audio` names the file `audio_features_<audio>.pkl`. Without a `dev_data.json` a tenth of the
    train dialogues is held out by `seed` (the published code took the test split for dev). Raises
    `DataError` naming file, dialogue and utterance.
    """
    audio_file, video_file = folder / f"audio_features_{audio}.pkl", folder / "video_features.pkl"
    features = {}
    if audio_file.exists():
        suffix = f"_{audio}" if "hubert" in audio else ""
        features["audio"] = _features(audio_file, f"{corpus} audio: {audio}", suffix)
    if video_file.exists():
        features["video"] = _features(video_file, "denseface")
    dialogues: dict[Split, tuple[Dialogue, ...]] = {split: () for split in SPLITS}
    widths: dict[str, int] = {}
    for split in SPLITS:
        path = folder / f"{split}_data.json"
        if path.exists() or split == "train":
            dialogues[split] = tuple(
                _dialogue(path, corpus, split, name, utterances, features, widths)
                for name, utterances in _read(path).items()
            )
    data = DataSet(
        name=corpus,
        labels=_WORDS[corpus][0],
        widths=widths,
        extractors={modality: features[modality].recipe for modality in widths},
        dialogues=dialogues,
    )
    return filled(with_dev(data, seed=seed))


def _features(path: Path, recipe: str, suffix: str = "") -> _Features:
    by_split = load_pickle(path)
    nested = isinstance(by_split, dict) and all(isinstance(p, dict) for p in by_split.values())
    if not nested or not set(by_split) & set(SPLITS):
        raise DataError(f"{path} holds no dict of splits (train, dev, test) of dicts of vectors")
    return _Features(path, recipe, suffix, by_split)


def _read(path: Path) -> Mapping[str, Mapping[str, Any]]:
    """Return dialogue id -> utterance id -> fields, in the order of the file."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}") from error
    dialogues: dict[str, Mapping[str, Any]] = {}
    for turns, of_this_length in _object(content, f"{path}").items():
        for name, utterances in _object(of_this_length, f"{path}, {turns!r} turns").items():
            if name in dialogues:
                raise DataError(f"{path}: dialogue {name!r} is there twice")
            dialogues[name] = _object(utterances, f"{path}, dialogue {name!r}")
    return dialogues


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise DataError(f"{where}: {type(value).__name__}, expected an object with something in it")
    return value


def _dialogue(
    path: Path,
    corpus: Corpus,
    split: Split,
    name: str,
    utterances: Mapping[str, Any],
    features: Mapping[str, _Features],
    widths: dict[str, int],
) -> Dialogue:
    """Return one dialogue; the first vector of a modality sets its width for the whole set."""
    words = _WORDS[corpus][1]
    rows = [_fields(path, name, number, row, words) for number, row in utterances.items()]
    vectors: dict[str, list[Floats | None]] = {m: [] for m in features}
    for row in rows:
        for modality, file in features.items():
            vector = file.vector(split, row["feature_key"])
            if vector is not None and len(vector) != widths.setdefault(modality, len(vector)):
                raise DataError(
                    f"{file.path}, {split}, {row['feature_key']!r} has {len(vector)} numbers, the "
                    f"first vector {widths[modality]}"
                )
            vectors[modality].append(vector)
    present = np.zeros((len(rows), len(INPUTS)), np.bool_)
    for modality, column in vectors.items():
        present[:, INPUTS.index(modality)] = [vector is not None for vector in column]
    return Dialogue(
        dialogue_id=f"{split}_{name}",
        utterance_ids=tuple(str(number) for number in utterances),
        speakers=tuple(row["speaker"] for row in rows),
        sentences=tuple(row["utterance"] for row in rows),
        labels=np.array([words.index(row["emotion"].lower()) for row in rows], np.int64),
        features={
            modality: np.stack(
                [np.zeros(widths[modality], np.float32) if v is None else v for v in column]
            )
            for modality, column in vectors.items()
            if modality in widths
        },
        present=present,
    )


def _fields(
    path: Path, dialogue: str, number: str, row: Any, words: Sequence[str]
) -> dict[str, str]:
    """Return `_FIELDS` of an utterance, in any case of their names. Raises `DataError`."""
    where = f"{path}, dialogue {dialogue!r}, utterance {number!r}"
    known = {key.lower(): value for key, value in _object(row, where).items()}
    for field in _FIELDS:
        if not isinstance(known.get(field), str) or not known[field].strip():
            raise DataError(f"{where}: no text in field {field!r}")
    if known["emotion"].lower() not in words:
        raise DataError(
            f"{where}: emotion {known['emotion']!r}, expected one of {', '.join(words)}"
        )
    head = f"{known['speaker']}: "  # the name before the words
    if known["utterance"].lower().startswith(head.lower()):
        known["utterance"] = known["utterance"][len(head) :]
    return {field: known[field] for field in _FIELDS}
