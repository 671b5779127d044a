"""Conversations with labels: read a data-set folder, write one, or generate one for tests.

A folder holds, for a set called `<set>`: ``<set>_dialogues.jsonl.gz`` (one dialogue a line),
``<set>_features.npz`` (row i is the utterance with ``row`` i), ``<set>_meta.json`` (labels, column
names, train means) and optionally ``<set>_persona.npz``. Nothing is unpickled. Needs numpy only.

Audio and video are the *raw* columns, as the extractors publish them; the checkpoint normalises.
A column that is not a number inside a present vector (Praat finds no pitch in a whisper) is
replaced by the mean of that column over the train split, as the meta file states it, because
NaN never crosses the wire.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from model.predictor import ModelError

Split = Literal["train", "dev", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "dev", "test")
MODALITIES: Final = ("text", "audio", "video", "persona")
UNLABELLED: Final = -1

Floats = NDArray[np.float32]


class DataError(ModelError):
    """A data-set folder that cannot be read; says which file and why."""


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One conversation of T utterances in spoken order, with what is known of each."""

    dialogue_id: str
    utterance_ids: tuple[str, ...]  # [T]
    speakers: tuple[str, ...]  # [T]
    sentences: tuple[str, ...]  # [T]
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
    """A whole set in memory."""

    name: str
    labels: tuple[str, ...]
    widths: Mapping[str, int]  # modality -> vector width, modalities the set has
    extractors: Mapping[str, str]  # modality -> recipe its vectors come from
    dialogues: Mapping[Split, tuple[Dialogue, ...]]

    def split(self, name: Split) -> tuple[Dialogue, ...]:
        return self.dialogues[name]


def read_data_set(folder: Path, name: str | None = None) -> DataSet:
    """Read `<name>_*` from `folder`; the only set there (or MELD of several) when `name` is None.

    Raises `DataError`.
    """
    name = name or _set_in(folder)
    meta = _meta(folder / f"{name}_meta.json")
    features = _features(folder, name, meta)
    rows = _arrays(folder / f"{name}_features.npz")["text"].shape[0]
    present = _present(features, rows)
    clean = {m: np.where(present[:, [i]], features[m][0], np.float32(0))
             for i, m in enumerate(MODALITIES) if m in features}  # fmt: skip
    dialogues: dict[Split, list[Dialogue]] = {split: [] for split in SPLITS}
    for line in _lines(folder / f"{name}_dialogues.jsonl.gz"):
        dialogues[line["split"]].append(_dialogue(line, clean, present))
    return DataSet(
        name=name,
        labels=tuple(meta["labels"]),
        widths={m: int(values.shape[1]) for m, values in clean.items()},
        extractors=_extractors(name, meta, clean),
        dialogues={split: tuple(found) for split, found in dialogues.items()},
    )


def _set_in(folder: Path) -> str:
    found = sorted(p.name.removesuffix("_meta.json") for p in folder.glob("*_meta.json"))
    if not found:
        raise DataError(
            f"no data set in {folder}: expected <set>_meta.json, <set>_dialogues.jsonl.gz and "
            "<set>_features.npz (give the folder with --data, or set EMOTRACK_DATA)"
        )
    if len(found) > 1 and "meld" not in found:
        raise DataError(f"{folder} holds several sets ({', '.join(found)}): name one with --set")
    return "meld" if "meld" in found else found[0]


def _meta(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if not isinstance(meta, dict) or not meta.get("labels"):
        raise DataError(f"{path} names no labels")
    return meta


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # numpy leaves the file of a broken archive open when it opened it itself
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, BadZipFile) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path}: {error}") from error


def _features(
    folder: Path, name: str, meta: Mapping[str, Any]
) -> dict[str, tuple[Floats, NDArray[np.bool_]]]:
    """Modality -> ([rows, width], [rows] present)."""
    arrays = _arrays(folder / f"{name}_features.npz")
    text = arrays["text"].astype(np.float32)
    found: dict[str, tuple[Floats, NDArray[np.bool_]]] = {}
    found["text"] = (text, np.ones(len(text), np.bool_))
    for modality, key in (("audio", "audio"), ("video", "visual")):
        if f"{key}_raw" in arrays:
            mean = np.asarray(meta[f"{key}_mean"], np.float32)
            raw = arrays[f"{key}_raw"].astype(np.float32)
            found[modality] = (np.where(np.isnan(raw), mean, raw), arrays[f"{key}_mask"])
    persona = folder / f"{name}_persona.npz"
    if persona.is_file():
        vectors = _arrays(persona)["persona"].astype(np.float32)
        found["persona"] = (vectors, np.isfinite(vectors).sum(axis=1) == vectors.shape[1])
    return found


def _present(
    features: Mapping[str, tuple[Floats, NDArray[np.bool_]]], rows: int
) -> NDArray[np.bool_]:
    absent = np.zeros(rows, np.bool_)
    return np.stack([features[m][1] if m in features else absent for m in MODALITIES], axis=1)


def _dialogue(
    line: Mapping[str, Any], features: Mapping[str, Floats], present: NDArray[np.bool_]
) -> Dialogue:
    utterances = line["utterances"]
    rows = np.array([u["row"] for u in utterances], np.int64)
    labels = [UNLABELLED if u.get("label") is None else int(u["label"]) for u in utterances]
    return Dialogue(
        dialogue_id=str(line["dialogue_id"]),
        utterance_ids=tuple(str(u["uid"]) for u in utterances),
        speakers=tuple(str(u["speaker"]) for u in utterances),
        sentences=tuple(str(u["text"]) for u in utterances),
        labels=np.array(labels, np.int64),
        features={modality: values[rows] for modality, values in features.items()},
        present=present[rows],
    )


def _extractors(
    name: str, meta: Mapping[str, Any], features: Mapping[str, Floats]
) -> dict[str, str]:
    if "extractors" in meta:
        return {modality: str(meta["extractors"][modality]) for modality in features}
    recipes = {
        "text": str(meta.get("text_encoder", "unknown")).split(",")[0],
        "audio": "praat: " + " ".join(meta.get("audio_columns", ())),
        "video": "openface-au-intensity-mean: " + " ".join(meta.get("visual_columns", ())),
        "persona": f"{name}-persona: five per-utterance traits",
    }
    if "text_encoder" not in meta and features["text"].shape[1] == 384:
        recipes["text"] = "all-MiniLM-L6-v2"  # the one 384-wide encoder this format is written with
    return {modality: recipes[modality] for modality in features}


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


def write_data_set(folder: Path, data: DataSet) -> None:
    """Write `data` in the folder layout `read_data_set` reads (raw columns, no normalised ones)."""
    folder.mkdir(parents=True, exist_ok=True)
    order = [(split, d) for split in SPLITS for d in data.split(split)]
    columns = {m: np.concatenate([d.features[m] for _, d in order]) for m in data.widths}
    present = np.concatenate([d.present for _, d in order])
    arrays: dict[str, NDArray[Any]] = {
        "label": np.concatenate([d.labels for _, d in order]).astype(np.int8),
        "text": columns["text"].astype(np.float16),
    }
    meta: dict[str, Any] = {"labels": list(data.labels), "splits": list(SPLITS)}
    meta["extractors"] = dict(data.extractors)
    for modality, key in (("audio", "audio"), ("video", "visual")):
        if modality in columns:
            shown = present[:, MODALITIES.index(modality)]
            arrays[f"{key}_mask"] = shown
            arrays[f"{key}_raw"] = np.where(shown[:, None], columns[modality], np.float32(np.nan))
            meta[f"{key}_mean"] = columns[modality][shown].mean(0).tolist()
    np.savez_compressed(folder / f"{data.name}_features.npz", allow_pickle=False, **arrays)
    if "persona" in columns:
        shown = present[:, [MODALITIES.index("persona")]]
        persona = np.where(shown, columns["persona"], np.float32(np.nan))
        np.savez_compressed(folder / f"{data.name}_persona.npz", persona=persona)
    (folder / f"{data.name}_meta.json").write_text(json.dumps(meta), "utf-8")
    _write_dialogues(folder / f"{data.name}_dialogues.jsonl.gz", order, data.labels)


def _write_dialogues(
    path: Path, order: Sequence[tuple[Split, Dialogue]], labels: Sequence[str]
) -> None:
    row = 0
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for split, dialogue in order:
            utterances = []
            for i, label in enumerate(dialogue.labels.tolist()):
                said = {"row": row, "uid": dialogue.utterance_ids[i]}
                said |= {"speaker": dialogue.speakers[i], "text": dialogue.sentences[i]}
                if label != UNLABELLED:
                    said |= {"label": label, "emotion": labels[label]}
                utterances.append(said)
                row += 1
            line = {"dialogue_id": dialogue.dialogue_id, "split": split, "utterances": utterances}
            file.write(json.dumps(line, ensure_ascii=False) + "\n")


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
