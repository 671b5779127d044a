"""Generated conversations with labels that follow from their vectors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

import numpy as np

from model.data.dataset import SPLITS, DataSet, Dialogue, Floats, Split

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
