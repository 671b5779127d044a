"""A person's own conversations become a data set, whole conversations to each split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from model.data.convert import NO_FEATURES, Shares, to_data_set
from model.data.dataset import SPLITS, UNLABELLED, DataSet
from model.data.feature_file import FeatureRows
from model.data.table import TableRow
from model.errors import DataError

NAN = float("nan")


def row(number: int, **cells: Any) -> TableRow:
    usual = {"conversation_id": "c", "speaker_id": "ann", "text": "hi", "emotion": "calm"}
    present = {k: v for k, v in (usual | cells).items() if v is not None}
    return TableRow(f"talk.csv, line {number}", present)


def talks(count: int, turns: int = 4) -> list[TableRow]:
    return [
        row(
            2 + c * turns + t,
            conversation_id=f"c{c}",
            text=f"{c}.{t}",
            emotion=("mad", "calm")[t % 2],
        )
        for c in range(count)
        for t in range(turns)
    ]


def ids(data: DataSet) -> dict[str, list[str]]:
    return {split: [d.dialogue_id for d in data.split(split)] for split in SPLITS}


def test_labels_are_the_emotions_of_the_rows_in_alphabetical_order() -> None:
    rows = talks(4)
    assert to_data_set("x", rows).labels == to_data_set("x", rows[::-1]).labels == ("calm", "mad")


def test_interleaved_conversations_keep_their_order() -> None:
    rows = [
        row(i, conversation_id=f"c{i % 2}", text=str(i), emotion="ab"[i // 2]) for i in range(4)
    ]
    data = to_data_set("x", rows, shares=Shares(dev=0, test=0))
    assert [d.sentences for d in data.split("train")] == [("0", "2"), ("1", "3")]
    assert data.split("train")[0].utterance_ids == ("0", "1")


def test_without_a_split_column_whole_conversations_are_dealt_out_the_same_each_time() -> None:
    data = to_data_set("x", talks(10))
    cut = ids(data)
    assert [len(part) for part in cut.values()] == [6, 2, 2]
    assert len({name for part in cut.values() for name in part}) == 10
    assert ids(to_data_set("x", talks(10))) == cut
    assert ids(to_data_set("x", talks(10), shares=Shares(seed=5))) != cut
    assert "dev: 2 of" in data.note


@pytest.mark.parametrize(("count", "sizes"), [(2, [1, 1, 0]), (3, [1, 1, 1])])
def test_few_conversations_still_have_one_to_choose_on(count: int, sizes: list[int]) -> None:
    assert [len(part) for part in ids(to_data_set("x", talks(count))).values()] == sizes


def test_one_conversation_is_too_few() -> None:
    with pytest.raises(DataError, match="x has 1 train dialogue: a dev split needs one besides"):
        to_data_set("x", talks(1))


def test_shares_are_met_and_shares_of_everything_refused() -> None:
    data = to_data_set("x", talks(10), shares=Shares(dev=0.3, test=0))
    assert [len(part) for part in ids(data).values()] == [7, 3, 0]
    with pytest.raises(DataError, match=r"shares 0\.5 of dev and 0\.5 of test leave nothing"):
        to_data_set("x", talks(10), shares=Shares(dev=0.5, test=0.5))


def test_a_split_column_decides_and_ids_may_restart_in_each_split() -> None:
    rows = [
        row(i, conversation_id=0, split=split, emotion=emotion)
        for i, (split, emotion) in enumerate([("Train", "a"), ("train", "b"), ("val", "a")])
    ]
    assert ids(to_data_set("x", rows)) == {"train": ["0"], "dev": ["0"], "test": []}


def test_a_row_without_an_emotion_is_unlabelled() -> None:
    rows = [*talks(3), row(20, conversation_id="c0", emotion=None)]
    data = to_data_set("x", rows, shares=Shares(dev=0, test=0))
    assert data.split("train")[0].labels[-1] == UNLABELLED


def test_vectors_go_with_their_rows_and_holes_get_the_mean_of_train() -> None:
    values = np.array([[1, 5], [NAN, 5], [3, 5], [NAN, NAN]], np.float32)
    rows = [row(i, conversation_id=f"c{i % 2}", emotion="ab"[i // 2]) for i in range(4)]
    features = FeatureRows("a.npz", {"audio": values}, {"audio": "praat"})
    data = to_data_set("x", rows, features, Shares(dev=0, test=0))
    first, second = data.split("train")
    assert first.features["audio"].tolist() == [[1, 5], [3, 5]]
    assert second.features["audio"].tolist() == [[2, 5], [0, 0]]
    assert second.present[:, 1].tolist() == [True, False]
    assert (data.widths, data.extractors) == ({"audio": 2}, {"audio": "praat"})


def test_an_utterance_needs_no_text_where_it_has_a_vector() -> None:
    rows = [row(i, text=None, emotion="ab"[i]) for i in range(2)]
    features = FeatureRows("t.npz", {"text": np.ones((2, 3), np.float32)}, {})
    data = to_data_set("x", rows, features, Shares(dev=0, test=0))
    assert data.split("train")[0].sentences == ("", "")


@pytest.mark.parametrize(
    ("rows", "features", "message"),
    [
        ([], NO_FEATURES, "no utterances"),
        (
            [row(2, emotion=None)],
            NO_FEATURES,
            "1 utterances has an emotion.*--label-col",
        ),
        ([row(2, text=None)], NO_FEATURES, "a text .*name the column with --text-column"),
        (
            [row(2), row(3, speaker_id=None)],
            NO_FEATURES,
            "line 3: nothing in the column `speaker_id`.*--speaker-c",
        ),
        (
            [row(2), row(3, conversation_id=None)],
            NO_FEATURES,
            "line 3: nothing in the column `conversation_id`.*--conversation-column",
        ),
        ([row(2), row(3, text=None)], NO_FEATURES, "line 3: neither a text nor a vector"),
        ([row(2), row(3, text=["a"])], NO_FEATURES, r"line 3: `text` is \['a'\]"),
        (
            [row(2, utterance_id="u"), row(3, utterance_id="u")],
            NO_FEATURES,
            "line 3: .* 'u' is used",
        ),
        ([row(2), row(3)], NO_FEATURES, r"1 emotion named \(calm\)"),
        (
            [row(2, split="train"), row(3, split="all")],
            NO_FEATURES,
            "line 3: split 'all' is none of",
        ),
        ([row(2, split="train"), row(3)], NO_FEATURES, "line 3: split None"),
        ([row(2, split="dev"), row(3, split="dev", emotion="mad")], NO_FEATURES, "split train"),
        (
            [row(2), row(3)],
            FeatureRows("a.npz", {"audio": np.ones((3, 2), np.float32)}, {}),
            "a.npz has 3 rows, the conversations have 2",
        ),
    ],
)
def test_a_misfit_names_the_row_and_the_cure(
    rows: Iterable[TableRow], features: FeatureRows, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        to_data_set("x", rows, features)
