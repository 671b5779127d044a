"""MELD and IEMOCAP from the feature pickles that the published code of PCGNet and M3NET reads.

Nothing is run: `model.data.safe_pickle` reads the files. Each is a tuple of dicts keyed by dialogue
id:

=================== ======= ==================================================================
file                tuple   positions
=================== ======= ==================================================================
IEMOCAP features    9       0 utterance ids, 1 speakers M/F, 2 labels, 4 audio, 5 visual,
                            6 sentences, 7 train ids, 8 test ids (3 unused)
MELD features       10      the same, speakers as one-hot rows; 9 ignored
IEMOCAP roberta     10      2, 3, 4, 5: vectors of the last four layers
MELD roberta        11      3, 4, 5, 6: likewise
persona             dict    dialogue id -> [T, 5]
=================== ======= ==================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from model.data.dataset import IEMOCAP_LABELS, MELD_LABELS, DataSet, Dialogue, Floats, Split, filled
from model.data.safe_pickle import load_pickle
from model.data.splits import with_dev
from model.errors import DataError
from model.interface import INPUTS

Corpus = Literal["meld", "iemocap"]
ROBERTA: Final = (
    "roberta-large fine-tuned on single utterances, <s> of the last four layers averaged"
)


@dataclass(frozen=True, slots=True)
class _Layout:
    """Positions of a corpus's parts in its files."""

    labels: tuple[str, ...]
    features: int  # length of the tuple
    roberta: int
    layers: tuple[int, ...]  # positions in the roberta tuple
    audio: str  # recipe
    dev: range  # train ids that are the dev split; empty: one is held out


_LAYOUTS: Final[Mapping[Corpus, _Layout]] = {
    "meld": _Layout(
        MELD_LABELS, 10, 11, (3, 4, 5, 6), "MELD audio: 300 numbers, recipe not published",
        range(1039, 1153),
    ),
    "iemocap": _Layout(IEMOCAP_LABELS, 9, 10, (2, 3, 4, 5), "openSMILE IS10", range(0)),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _File:
    """One unpickled file: parts by position, each a dict keyed by dialogue id."""

    path: Path
    parts: Sequence[Any]

    def of(self, position: int, dialogue: Any, turns: int | None = None) -> list[Any]:
        """Return the entry of `dialogue` at `position`. Raises unless it has `turns` utterances."""
        part = self.parts[position]
        if not isinstance(part, dict) or dialogue not in part:
            raise DataError(f"{self.path}, position {position}: no dialogue {dialogue!r}")
        entry, where = part[dialogue], self.where(position, dialogue)
        array = isinstance(entry, np.ndarray) and entry.ndim > 0
        if not array and not isinstance(entry, list | tuple):
            raise DataError(f"{where} is no list")
        if turns is not None and len(entry) != turns:
            raise DataError(f"{where} has {len(entry)} utterances, but {turns} utterance ids")
        return list(entry)

    def where(self, position: int, dialogue: Any) -> str:
        """Return a dialogue's place in the file, for messages."""
        return f"{self.path}, position {position}: dialogue {dialogue!r}"

    def vectors(self, position: int, dialogue: Any, turns: int) -> Floats:
        """Return a dialogue's vectors, [T, width]."""
        rows, where = self.of(position, dialogue, turns), self.where(position, dialogue)
        widths = sorted({np.size(row) for row in rows})
        if len(widths) != 1:
            raise DataError(f"{where} has vectors of {widths} numbers, expected one width")
        try:
            values = np.asarray(rows, np.float32).reshape(turns, widths[0])
        except (TypeError, ValueError) as error:
            raise DataError(f"{where} holds no numbers: {error}") from error
        if np.isinf(values).any():
            raise DataError(f"{where} holds Inf")
        return values


def read_original(
    corpus: Corpus, features: Path, roberta: Path, persona: Path | None = None, *, seed: int = 0
) -> DataSet:
    """Read the corpus as a data set; text is the mean of the four RoBERTa vectors.

    Splits are the id lists of the features file. MELD's train list holds its dev split (ids 1039 to
    1152); IEMOCAP has none, so a tenth of the train dialogues is held out by `seed`. Raises
    `DataError` naming file, position and dialogue.
    """
    layout = _LAYOUTS[corpus]
    files = (
        _opened(features, layout.features),
        _opened(roberta, layout.roberta),
        None if persona is None else _File(persona, [load_pickle(persona)]),
    )
    dialogues: dict[Split, list[Dialogue]] = {"train": [], "dev": [], "test": []}
    train, test = (_ids(files[0], position) for position in (7, 8))
    if both := sorted(set(map(str, train)) & set(map(str, test))):
        raise DataError(f"{features}: dialogue {both[0]!r} is in the train and the test list")
    for dialogue in train:
        split: Split = "dev" if dialogue in layout.dev else "train"
        dialogues[split].append(_dialogue(layout, files, split, dialogue))
    dialogues["test"] = [_dialogue(layout, files, "test", dialogue) for dialogue in test]
    every = [d for part in dialogues.values() for d in part]
    if not every:
        raise DataError(f"{features}: its lists of train and test ids (positions 7, 8) are empty")
    data = DataSet(
        name=corpus,
        labels=layout.labels,
        widths=_widths(features, every),
        extractors={
            "text": ROBERTA,
            "audio": layout.audio,
            "video": "denseface: 342 numbers",
            **({"persona": f"{corpus}-persona: five per-utterance traits"} if persona else {}),
        },
        dialogues={split: tuple(part) for split, part in dialogues.items()},
    )
    return filled(with_dev(data, seed=seed))


def _opened(path: Path, length: int) -> _File:
    parts = load_pickle(path)
    if not isinstance(parts, tuple | list) or len(parts) != length:
        size = len(parts) if isinstance(parts, tuple | list | dict) else 1
        raise DataError(
            f"{path} holds a {type(parts).__name__} of {size}, expected a tuple of {length}: is it "
            "another corpus's file, or the features and roberta files swapped?"
        )
    return _File(path, parts)


def _ids(file: _File, position: int) -> list[Any]:
    ids = file.parts[position]
    if not isinstance(ids, list | tuple | set | frozenset | np.ndarray):
        raise DataError(f"{file.path}, position {position}: {type(ids).__name__}, expected ids")
    return sorted(ids) if isinstance(ids, set | frozenset) else list(ids)


def _dialogue(
    layout: _Layout, files: tuple[_File, _File, _File | None], split: Split, dialogue: Any
) -> Dialogue:
    features, roberta, persona = files
    ids = features.of(0, dialogue)
    turns = len(ids)
    layers = [roberta.vectors(position, dialogue, turns) for position in layout.layers]
    widths = [layer.shape[1] for layer in layers]
    if len(set(widths)) != 1:
        raise DataError(f"{roberta.path}: dialogue {dialogue!r} has layers of {widths} numbers")
    mixed: Floats = np.stack(layers).mean(axis=0)
    vectors = {
        "text": mixed,
        "audio": features.vectors(4, dialogue, turns),
        "video": features.vectors(5, dialogue, turns),
    }
    if persona is not None:
        vectors["persona"] = persona.vectors(0, dialogue, turns)
    labels, classes = np.asarray(features.of(2, dialogue, turns)), len(layout.labels)
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        met = sorted(set(labels.tolist()))
        raise DataError(
            f"{features.where(2, dialogue)} has labels {met}, expected 0..{classes - 1}"
        )
    names = tuple(map(str, ids))
    if len(set(names)) < turns:  # the file numbers two alike
        names = tuple(map(str, range(turns)))
    return Dialogue(
        dialogue_id=f"{split}_{dialogue}" if isinstance(dialogue, int) else str(dialogue),
        utterance_ids=names,
        speakers=tuple(_speaker(features, dialogue, s) for s in features.of(1, dialogue, turns)),
        sentences=tuple(str(s) for s in features.of(6, dialogue, turns)),
        labels=labels.astype(np.int64),
        features=vectors,
        present=np.tile([m in vectors for m in INPUTS], (turns, 1)),
    )


def _speaker(file: _File, dialogue: Any, value: Any) -> str:
    """Return a named speaker unchanged; for a one-hot row, its number."""
    if isinstance(value, str) and value.strip():
        return value
    row = np.asarray(value)
    if row.dtype.kind not in "fiub" or row.ndim != 1 or row.sum() != 1 or row.max() != 1:
        raise DataError(
            f"{file.where(1, dialogue)} has speaker {value!r}, expected a name or a one-hot row"
        )
    return f"speaker {int(row.argmax())}"


def _widths(path: Path, dialogues: Sequence[Dialogue]) -> dict[str, int]:
    widths = {m: int(v.shape[1]) for m, v in dialogues[0].features.items()}
    for dialogue in dialogues:
        for modality, vectors in dialogue.features.items():
            if vectors.shape[1] != widths[modality]:
                raise DataError(
                    f"{path}: dialogue {dialogue.dialogue_id!r} has {modality} of "
                    f"{vectors.shape[1]} numbers, the first one {widths[modality]}"
                )
    return widths
