"""Convert a user's own conversations, one utterance a row, to a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from model.data.arrays import check_sentiment
from model.data.dataset import SENTIMENTS, UNLABELLED, DataSet, Dialogue, Split, filled
from model.data.feature_file import FeatureRows
from model.data.feature_match import matched, row_keys
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


Conversations = Mapping[tuple[Split, str], Mapping[int, TableRow]]  # rows by number


def to_data_set(
    name: str,
    rows: Iterable[TableRow],
    features: FeatureRows = NO_FEATURES,
    shares: Shares = Shares(),
    sentiment: Mapping[str, str] = MappingProxyType({}),
    *,
    warn: Callable[[str], None] = lambda _: None,
) -> DataSet:
    """Return rows, in spoken order within each conversation, as a data set called `name`.

    Conversations may be interleaved. Labels are the emotions of the rows, sorted; a row without one
    is unlabelled. With a split column, a conversation is identified by split and id (corpora number
    each split from 0); without, whole conversations are assigned by `shares`. A label's sentiment
    is the one in `sentiment`, else the commonest of its rows that state one. `warn` receives
    sentences on doubtful features. Raises `DataError` naming the row.
    """
    collected = list(rows)
    features = matched(features, list(row_keys(row.cells for row in collected)), warn)
    if features.vectors and features.rows != len(collected):
        raise DataError(
            f"{features.source} has {features.rows} rows, the conversations have {len(collected)} "
            "utterances: row i is the i-th utterance"
        )
    _require_columns(collected, features)
    stated = any("split" in row.cells for row in collected)
    conversations: dict[tuple[Split, str], dict[int, TableRow]] = {}
    for i, row in enumerate(collected):
        key = (_split(row) if stated else "train", _name(row, "conversation_id"))
        _check(i, row, features)
        conversations.setdefault(key, {})[i] = row
    data = _data_set(name, conversations, features)
    for label, value in sentiment.items():
        check_sentiment("--sentiment", label, value, data.labels)
    data = replace(data, sentiment=_sentiments(collected) | dict(sentiment))
    if not stated:
        if shares.dev < 0 or shares.test < 0 or shares.dev + shares.test >= 1:
            raise DataError(
                f"shares {shares.dev} of dev and {shares.test} of test leave nothing to train"
            )
        count = len(data.split("train"))  # under three: no test split
        wanted: dict[Split, float] = {"test": shares.test if count > 2 else 0, "dev": shares.dev}
        for part, share in wanted.items():
            if share:
                left = len(data.split("train"))
                data = held_out(data, part, share=share * count / left, seed=shares.seed)
    if not data.split("train"):
        raise DataError("no conversation has the split train: there is nothing to learn from")
    return filled(data)


def _data_set(name: str, conversations: Conversations, features: FeatureRows) -> DataSet:
    cells = (row.cells for rows in conversations.values() for row in rows.values())
    labels = sorted({str(cell["emotion"]) for cell in cells if "emotion" in cell})
    cut: dict[Split, list[Dialogue]] = {"train": [], "dev": [], "test": []}
    for (split, conversation), rows in conversations.items():
        cut[split].append(_dialogue(conversation, rows, labels, features))
    if len(labels) < 2:
        raise DataError(
            f"{len(labels)} emotion named ({', '.join(labels)}): a model tells two or more apart"
        )
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


def _sentiments(rows: Sequence[TableRow]) -> dict[str, str]:
    """Return the commonest sentiment of each label's rows, of equally common ones neutral."""
    counted: dict[str, Counter[str]] = {}
    for row in rows:
        if "sentiment" not in row.cells or "emotion" not in row.cells:
            continue
        value = str(row.cells["sentiment"]).lower()
        if value not in SENTIMENTS:
            raise DataError(
                f"{row.place}: sentiment {value!r} is none of {', '.join(SENTIMENTS)}: correct it, "
                "or give the column another name if it says something else"
            )
        counted.setdefault(str(row.cells["emotion"]), Counter())[value] += 1
    found = {}
    for label, counts in counted.items():
        (first, most), (_, second) = [*counts.most_common(2), ("", 0)][:2]
        found[label] = first if most > second else "neutral"
    return found


def _require_columns(rows: Sequence[TableRow], features: FeatureRows) -> None:
    if not rows:
        raise DataError("no utterances: the file is empty")
    wanted = {"emotion": "--label-column"}
    if "text" not in features.vectors:
        wanted["text"] = "--text-column"
    for ours, flag in wanted.items():
        if any(ours in row.cells for row in rows):
            continue
        file = rows[0].place.rpartition(", line ")[0]
        lacking = f"{file}: none of the {len(rows):,} utterances has "
        if ours == "text":
            raise DataError(f"{lacking}a text (a column `text`): name the column with {flag}")
        raise DataError(
            f"{lacking}an emotion (a column `emotion` or `label`): name the column with {flag}, or "
            "label some. Conversations that are to be answered, not learnt from, need no data set: "
            f"`emotrack predict {file}` answers them here, `emotrack publish {file}` sends them to "
            "the workers"
        )


def _split(row: TableRow) -> Split:
    value = row.cells.get("split")
    split = SPLIT_NAMES.get(str(value).lower())
    if split is None:
        raise DataError(f"{row.place}: split {value!r} is none of train, dev, test")
    return split


def _name(row: TableRow, ours: str) -> str:
    value = row.cells.get(ours)
    if value is None:
        raise DataError(
            f"{row.place}: nothing in the column `{ours}`: fill the cell in, or name another "
            f"column with --{ours.removesuffix('_id')}-column"
        )
    if isinstance(value, list | dict | float | bool):
        flag = ours.removesuffix("_id")
        raise DataError(
            f"{row.place}: `{ours}` is {value!r}, expected a name (another column is named with "
            f"--{flag}-column)"
        )
    return str(value)


def _check(i: int, row: TableRow, features: FeatureRows) -> None:
    """Raise `DataError` for row `i` if its text or emotion is malformed, or it has no content."""
    text = row.cells.get("text", "")
    emotion = row.cells.get("emotion")
    if not isinstance(text, str):
        raise DataError(f"{row.place}: `text` is {text!r}, expected a sentence")
    if isinstance(emotion, list | dict | float | bool):
        raise DataError(f"{row.place}: `emotion` is {emotion!r}, expected a name")
    if not text and not any(features.present(m)[i] for m in features.vectors):
        raise DataError(f"{row.place}: neither a text nor a vector: leave the utterance out")


def _dialogue(
    conversation: str, rows: Mapping[int, TableRow], labels: Sequence[str], features: FeatureRows
) -> Dialogue:
    ids: dict[str, None] = {}
    for row in rows.values():
        uid = str(row.cells.get("utterance_id", len(ids)))
        if uid in ids:
            raise DataError(f"{row.place}: utterance id {uid!r} is used twice in its conversation")
        ids[uid] = None
    numbers = list(rows)
    present = np.zeros((len(rows), len(INPUTS)), np.bool_)
    for modality in features.vectors:
        present[:, INPUTS.index(modality)] = features.present(modality)[numbers]
    emotions = [row.cells.get("emotion") for row in rows.values()]
    return Dialogue(
        dialogue_id=conversation,
        utterance_ids=tuple(ids),
        speakers=tuple(_name(row, "speaker_id") for row in rows.values()),
        sentences=tuple(row.cells.get("text", "") for row in rows.values()),
        labels=np.array(
            [UNLABELLED if e is None else labels.index(str(e)) for e in emotions], np.int64
        ),
        features={m: values[numbers] for m, values in features.vectors.items()},
        present=present,
    )
