"""Convert a user's own conversations, one utterance a row, to a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from model.data.dataset import UNLABELLED, DataSet, Dialogue, Split
from model.data.feature_file import FeatureRows
from model.data.missing import filled
from model.data.splits import held_out
from model.data.table import TableRow
from model.errors import DataError
from model.interface import INPUTS

SPLIT_NAMES: Final[Mapping[str, Split]] = {
    "train": "train", "training": "train",
    "dev": "dev", "val": "dev", "valid": "dev", "validation": "dev", "development": "dev",
    "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip
NO_FEATURES: Final = FeatureRows("no features", {}, {})


@dataclass(frozen=True, slots=True)
class Shares:
    """Shares of all conversations for dev and test, where the file has no split."""

    dev: float = 0.15
    test: float = 0.15
    seed: int = 0


@dataclass(slots=True)
class _Talk:
    """One conversation while it is collected; `rows` are rows of the table."""

    ids: dict[str, None] = field(default_factory=dict)
    speakers: list[str] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    emotions: list[str | None] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)


def to_data_set(
    name: str,
    rows: Iterable[TableRow],
    features: FeatureRows = NO_FEATURES,
    shares: Shares = Shares(),
) -> DataSet:
    """Return rows, in spoken order within each conversation, as a data set called `name`.

    Conversations may be interleaved. Labels are the emotions of the rows, sorted; a row without one
    is unlabelled. With a split column, a conversation is identified by split and id (corpora number
    each split from 0); without, whole conversations are assigned by `shares`. Raises `DataError`
    naming the row.
    """
    collected = list(rows)
    if features.vectors and features.rows != len(collected):
        raise DataError(
            f"{features.source} has {features.rows} rows, the conversations have {len(collected)} "
            "utterances: row i is the i-th utterance"
        )
    _require_columns(collected, features)
    stated = any("split" in row.cells for row in collected)
    talks: dict[tuple[Split, str], _Talk] = {}
    for i, row in enumerate(collected):
        key = (_split(row) if stated else "train", _name(row, "conversation_id"))
        _add(talks.setdefault(key, _Talk()), i, row, features)
    data = _data_set(name, talks, features)
    if not stated:
        data = _shared_out(data, shares)
    if not data.split("train"):
        raise DataError("no conversation has the split train: there is nothing to learn from")
    return filled(data)


def _data_set(
    name: str, talks: Mapping[tuple[Split, str], _Talk], features: FeatureRows
) -> DataSet:
    labels = sorted({e for talk in talks.values() for e in talk.emotions if e is not None})
    if len(labels) < 2:
        raise DataError(
            f"{len(labels)} emotion named ({', '.join(labels)}): a model tells two or more apart"
        )
    cut: dict[Split, list[Dialogue]] = {"train": [], "dev": [], "test": []}
    for (split, conversation), talk in talks.items():
        cut[split].append(_dialogue(conversation, talk, labels, features))
    widths = {m: values.shape[1] for m, values in features.vectors.items()}
    return DataSet(
        name=name,
        labels=tuple(labels),
        widths=widths,
        extractors={
            m: features.extractors.get(m, f"{name}-{m}: {width} numbers")
            for m, width in widths.items()
        },
        dialogues={split: tuple(part) for split, part in cut.items()},
    )


def _require_columns(rows: Sequence[TableRow], features: FeatureRows) -> None:
    if not rows:
        raise DataError("no utterances: the file is empty")
    wanted = {"emotion": "--label-column"}
    if "text" not in features.vectors:
        wanted["text"] = "--text-column"
    for ours, flag in wanted.items():
        if not any(ours in row.cells for row in rows):
            raise DataError(f"{rows[0].place}: nothing in a column `{ours}`: name it with {flag}")


def _split(row: TableRow) -> Split:
    value = row.cells.get("split")
    split = SPLIT_NAMES.get(str(value).lower())
    if split is None:
        raise DataError(f"{row.place}: split {value!r} is none of train, dev, test")
    return split


def _name(row: TableRow, ours: str) -> str:
    value = row.cells.get(ours)
    if value is None or isinstance(value, list | dict | float | bool):
        flag = ours.removesuffix("_id")
        raise DataError(
            f"{row.place}: `{ours}` is {value!r}, expected a name (another column is named with "
            f"--{flag}-column)"
        )
    return str(value)


def _add(talk: _Talk, i: int, row: TableRow, features: FeatureRows) -> None:
    uid = str(row.cells.get("utterance_id", len(talk.ids)))
    if uid in talk.ids:
        raise DataError(f"{row.place}: utterance id {uid!r} is used twice in its conversation")
    text = row.cells.get("text", "")
    emotion = row.cells.get("emotion")
    if not isinstance(text, str):
        raise DataError(f"{row.place}: `text` is {text!r}, expected a sentence")
    if isinstance(emotion, list | dict | float | bool):
        raise DataError(f"{row.place}: `emotion` is {emotion!r}, expected a name")
    if not text and not any(features.present(m)[i] for m in features.vectors):
        raise DataError(f"{row.place}: neither a text nor a vector: leave the utterance out")
    talk.ids[uid] = None
    talk.speakers.append(_name(row, "speaker_id"))
    talk.sentences.append(text)
    talk.emotions.append(None if emotion is None else str(emotion))
    talk.rows.append(i)


def _dialogue(
    conversation: str, talk: _Talk, labels: Sequence[str], features: FeatureRows
) -> Dialogue:
    present = np.zeros((len(talk.rows), len(INPUTS)), np.bool_)
    for modality in features.vectors:
        present[:, INPUTS.index(modality)] = features.present(modality)[talk.rows]
    numbers = [UNLABELLED if e is None else labels.index(e) for e in talk.emotions]
    return Dialogue(
        dialogue_id=conversation,
        utterance_ids=tuple(talk.ids),
        speakers=tuple(talk.speakers),
        sentences=tuple(talk.sentences),
        labels=np.array(numbers, np.int64),
        features={m: values[talk.rows] for m, values in features.vectors.items()},
        present=present,
    )


def _shared_out(data: DataSet, shares: Shares) -> DataSet:
    """Move whole conversations to dev and test; no test split under three conversations."""
    count = len(data.split("train"))
    if shares.dev < 0 or shares.test < 0 or shares.dev + shares.test >= 1:
        raise DataError(
            f"shares {shares.dev} of dev and {shares.test} of test leave nothing to train"
        )
    wanted: dict[Split, float] = {"test": shares.test if count > 2 else 0, "dev": shares.dev}
    for split, share in wanted.items():
        if share:
            left = len(data.split("train"))
            data = held_out(data, split, share=share * count / left, seed=shares.seed)
    return data
