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

Frames are averaged. An utterance without a vector lacks that modality; a feature file that is not
there, the set does. Pickles are read by `model.data.safe_pickle`: nothing is run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from model.data.dataset import SPLITS, DataSet, Dialogue, Floats, Split
from model.data.labels import IEMOCAP_LABELS, MELD_LABELS
from model.data.missing import filled
from model.data.published_pickles import Corpus
from model.data.safe_pickle import load_pickle
from model.data.splits import with_dev
from model.errors import DataError
from model.interface import INPUTS

# The words its label sentences use, in the order of our label sets.
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
    """The vectors of one modality: split -> key -> numbers."""

    path: Path
    recipe: str
    suffix: str  # of the keys
    by_split: Mapping[str, Mapping[str, Any]]

    def vector(self, split: Split, key: str) -> Floats | None:
        """[n] of an utterance, frames averaged; None where it has none. Raises `DataError`."""
        named, key = self.by_split.get(split, {}), key + self.suffix
        found = named.get(key, named.get(key.lower()))  # its code lowers the whole JSON, not these
        if found is None:
            return None
        where = f"{self.path}, {split}, {key!r}"
        try:
            values = np.asarray(found, np.float32)
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
    """The corpus as a data set of sentences, with audio and video where their files are there.

    `audio` names the file `audio_features_<audio>.pkl`. Where no `dev_data.json` is, a tenth of the
    train dialogues is held out by `seed` (the published code took the test split for dev). Raises
    `DataError` naming file, dialogue and utterance.
    """
    features = {
        modality: _features(folder / name, recipe, suffix)
        for modality, name, recipe, suffix in (
            (
                "audio",
                f"audio_features_{audio}.pkl",
                f"{corpus} audio: {audio}",
                f"_{audio}" if "hubert" in audio else "",
            ),
            ("video", "video_features.pkl", "denseface", ""),
        )
        if (folder / name).exists()
    }
    dialogues: dict[Split, tuple[Dialogue, ...]] = {split: () for split in SPLITS}
    widths: dict[str, int] = {}
    for split in SPLITS:
        path = folder / f"{split}_data.json"
        if path.exists() or split == "train":
            dialogues[split] = tuple(
                _dialogue(path, corpus, split, name, said, features, widths)
                for name, said in _read(path)
            )
    if not dialogues["train"]:
        raise DataError(f"{folder / 'train_data.json'} holds no dialogue")
    data = DataSet(
        name=corpus,
        labels=_WORDS[corpus][0],
        widths=widths,
        extractors={modality: features[modality].recipe for modality in widths},
        dialogues={split: _with_columns(found, widths) for split, found in dialogues.items()},
    )
    return filled(with_dev(data, seed=seed))


def _features(path: Path, recipe: str, suffix: str) -> _Features:
    found = load_pickle(path)
    nested = isinstance(found, dict) and all(isinstance(part, dict) for part in found.values())
    if not nested or not set(found) & set(SPLITS):
        raise DataError(f"{path} holds no dict of splits (train, dev, test) of dicts of vectors")
    return _Features(path, recipe, suffix, found)


def _read(path: Path) -> list[tuple[str, Mapping[str, Any]]]:
    """(dialogue id, utterances by id) in the order of the file."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}") from error
    found: dict[str, Mapping[str, Any]] = {}
    for turns, of_this_length in _object(content, f"{path}").items():
        for name, said in _object(of_this_length, f"{path}, {turns!r} turns").items():
            if name in found:
                raise DataError(f"{path}: dialogue {name!r} is there twice")
            found[name] = _object(said, f"{path}, dialogue {name!r}")
    return list(found.items())


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        raise DataError(f"{where}: {type(value).__name__}, expected an object with something in it")
    return value


def _dialogue(
    path: Path,
    corpus: Corpus,
    split: Split,
    name: str,
    said: Mapping[str, Any],
    features: Mapping[str, _Features],
    widths: dict[str, int],
) -> Dialogue:
    """One dialogue; the first vector of a modality says how wide it is in all of them."""
    rows = [_fields(path, name, number, row) for number, row in said.items()]
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
    words = _WORDS[corpus][1]
    for number, row in zip(said, rows, strict=True):
        if row["emotion"].lower() not in words:
            raise DataError(
                f"{path}, dialogue {name!r}, utterance {number!r}: emotion {row['emotion']!r}, "
                f"expected one of {', '.join(words)}"
            )
    return Dialogue(
        dialogue_id=f"{split}_{name}",
        utterance_ids=tuple(str(number) for number in said),
        speakers=tuple(row["speaker"] for row in rows),
        sentences=tuple(_words_of(row) for row in rows),
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


def _fields(path: Path, dialogue: str, number: str, row: Any) -> dict[str, str]:
    """The fields we read, whatever the case of their names. Raises `DataError`."""
    where = f"{path}, dialogue {dialogue!r}, utterance {number!r}"
    known = {key.lower(): value for key, value in _object(row, where).items()}
    for field in _FIELDS:
        if not isinstance(known.get(field), str) or not known[field].strip():
            raise DataError(f"{where}: no text in field {field!r}")
    return {field: str(known[field]) for field in _FIELDS}


def _words_of(row: Mapping[str, str]) -> str:
    """What was said, without the speaker's name before it."""
    head = f"{row['speaker']}: "
    said = row["utterance"]
    return said[len(head) :] if said.lower().startswith(head.lower()) else said


def _with_columns(dialogues: Sequence[Dialogue], widths: Mapping[str, int]) -> tuple[Dialogue, ...]:
    """Each dialogue with every modality of the set: absent where it has no vector of it."""
    return tuple(
        replace(
            d,
            features={
                m: d.features.get(m, np.zeros((len(d), width), np.float32))
                for m, width in widths.items()
            },
        )
        for d in dialogues
    )
