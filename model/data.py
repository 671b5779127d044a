"""Conversations with labels: what a data set is, in memory, and one generated for tests.

`docs/data.md` describes the folder that `read_data_set` reads and `write_data_set` writes. Needs
numpy only; nothing is unpickled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from model.predictor import ModelError

Split = Literal["train", "dev", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "dev", "test")
MODALITIES: Final = ("text", "audio", "video", "persona")
UNLABELLED: Final = -1

Floats = NDArray[np.float32]


class DataError(ModelError):
    """Data that does not fit; names the file, the row or line, and both sizes or values."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One conversation of T utterances in spoken order, with what is known of each."""

    dialogue_id: str
    utterance_ids: tuple[str, ...]  # [T]
    speakers: tuple[str, ...]  # [T]
    sentences: tuple[str, ...]  # [T], "" where only vectors are known
    labels: NDArray[np.int64]  # [T], UNLABELLED where nobody said
    features: Mapping[str, Floats]  # modality -> [T, width]; absent rows are 0
    present: NDArray[np.bool_]  # [T, 4] in the order of MODALITIES

    def __len__(self) -> int:
        return len(self.utterance_ids)


class DataSource(Protocol):
    """What training reads: labels, widths, and one split at a time."""

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def widths(self) -> Mapping[str, int]: ...

    @property
    def extractors(self) -> Mapping[str, str]: ...

    def split(self, name: Split) -> tuple[Dialogue, ...]: ...


@dataclass(frozen=True, slots=True)
class DataSet:
    """A whole set in memory. A split nobody made is empty."""

    name: str
    labels: tuple[str, ...]
    widths: Mapping[str, int]  # modality -> vector width, modalities the set has vectors of
    extractors: Mapping[str, str]  # modality -> recipe its vectors come from
    dialogues: Mapping[Split, tuple[Dialogue, ...]]
    note: str = ""  # what `model.folds` changed since the set was read, for people

    def split(self, name: Split) -> tuple[Dialogue, ...]:
        return self.dialogues[name]


def read_data_set(folder: Path, name: str | None = None) -> DataSet:
    """Read `<name>_*` from `folder`; the only set there (or MELD of several) when `name` is None.

    Raises `DataError` for whatever departs from docs/data.md.
    """
    from model.data_reader import read  # built on the types above

    return read(folder, name)


def write_data_set(folder: Path, data: DataSet) -> None:
    """Write `data` so that `read_data_set` gives it back; replaces a set of its name whole.

    Raises `DataError`, then nothing is written.
    """
    from model.data_writer import write  # built on the types above

    write(folder, data)


def column_statistics(dialogues: Sequence[Dialogue]) -> dict[str, tuple[Floats, Floats]]:
    """Mean and standard deviation of each column over the rows where the modality is present."""
    statistics: dict[str, tuple[Floats, Floats]] = {}
    for i, modality in enumerate(MODALITIES):
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


def label_counts(dialogues: Sequence[Dialogue], classes: int) -> NDArray[np.int64]:
    """How often each label occurs, [C]; unlabelled utterances count for nothing."""
    labels = np.concatenate([d.labels for d in dialogues])
    return np.bincount(labels[labels != UNLABELLED], minlength=classes)


def speaker_pairs(dialogue: Dialogue) -> NDArray[np.int64]:
    """(previous, current) indices of a speaker's consecutive utterances, [P, 2]."""
    last: dict[str, int] = {}
    pairs = []
    for i, speaker in enumerate(dialogue.speakers):
        if speaker in last:
            pairs.append((last[speaker], i))
        last[speaker] = i
    return np.array(pairs, np.int64).reshape(-1, 2)


# Generated conversations -----------------------------------------------------------------------

GENERATED_LABELS: Final = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
_WIDTHS: Final = {"text": 384, "audio": 8, "video": 17, "persona": 5}
_WORDS: Final = (
    "we wrote it down", "oh really now", "it is so dark there", "he left us early",
    "what a lovely day", "this smells rotten", "stop doing that",
)  # fmt: skip


def generated_conversations(count: int = 40, *, seed: int = 0) -> DataSet:
    """`count` made-up conversations laid out like MELD, for tests where no real data is.

    Emotions are sticky per speaker and each vector leans towards its emotion, so that a model can
    learn them; some utterances lack audio, video or persona. Equal seeds give equal bytes.
    """
    rng = np.random.default_rng(seed)
    leaning = {m: rng.normal(size=(7, width)).astype(np.float32) for m, width in _WIDTHS.items()}
    held_out = max(1, count * 3 // 20)
    splits: dict[Split, list[Dialogue]] = {split: [] for split in SPLITS}
    for n in range(count):
        back = count - 1 - n
        split: Split = "test" if back < held_out else "dev" if back < 2 * held_out else "train"
        splits[split].append(_generated(rng, f"{split}_gen{n}", leaning))
    return DataSet(
        name="generated",
        labels=GENERATED_LABELS,
        widths=dict(_WIDTHS),
        extractors={modality: "generated" for modality in _WIDTHS},
        dialogues={split: tuple(found) for split, found in splits.items()},
    )


def _generated(
    rng: np.random.Generator, dialogue_id: str, leaning: Mapping[str, Floats]
) -> Dialogue:
    length = int(rng.integers(3, 25))
    cast = [f"speaker {i}" for i in range(int(rng.integers(1, 6)))]
    speakers = tuple(str(rng.choice(cast)) for _ in range(length))
    moods: Counter[str] = Counter()
    labels = []
    for speaker in speakers:
        if speaker not in moods or rng.random() < 0.5:
            moods[speaker] = int(rng.choice(7, p=[0.4, 0.1, 0.05, 0.1, 0.2, 0.05, 0.1]))
        labels.append(moods[speaker])
    present = np.column_stack([np.ones(length, np.bool_), rng.random((length, 3)) > 0.1])
    features = {}
    for i, (modality, width) in enumerate(_WIDTHS.items()):
        values = leaning[modality][labels] + rng.normal(size=(length, width)).astype(np.float32)
        if modality == "text":
            values = values / np.linalg.norm(values, axis=1, keepdims=True)
        values = values.astype(np.float16).astype(np.float32)
        features[modality] = np.where(present[:, [i]], values, np.float32(0))
    return Dialogue(
        dialogue_id=dialogue_id,
        utterance_ids=tuple(f"{dialogue_id}_utt{i}" for i in range(length)),
        speakers=speakers,
        sentences=tuple(f"{_WORDS[label]} {i}" for i, label in enumerate(labels)),
        labels=np.array(labels, np.int64),
        features=features,
        present=present,
    )
