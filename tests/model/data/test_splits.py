"""Other cuts of a set keep every dialogue whole and every label where it can be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from model.data.dataset import SPLITS, UNLABELLED, DataSet, Dialogue, label_counts, speaker_pairs
from model.data.splits import held_out, joined, k_folds, restaged, with_dev, without
from model.errors import DataError
from tests.fakes.conversations import generated_conversations

DATA = generated_conversations(30, seed=1)
NO_DEV = replace(DATA, dialogues={**DATA.dialogues, "dev": ()})


def ids(dialogues: Iterable[Dialogue]) -> list[str]:
    return [d.dialogue_id for d in dialogues]


def talk(name: str, *labels: int) -> Dialogue:
    count = len(labels)
    return Dialogue(
        name, tuple(f"u{i}" for i in range(count)), ("ann", "bob", "ann")[:count],
        ("hi",) * count, np.array(labels), {}, np.zeros((count, 4), np.bool_),
    )  # fmt: skip


def small(*dialogues: Dialogue) -> DataSet:
    return DataSet("small", ("a", "b", "c"), {}, {}, {"train": dialogues, "dev": (), "test": ()})


def test_a_set_with_a_dev_split_is_unchanged() -> None:
    assert with_dev(DATA) is DATA


def test_a_dev_split_is_held_out_of_train_whole_and_the_same_each_time() -> None:
    cut = with_dev(NO_DEV, share=0.2, seed=3)
    train = ids(NO_DEV.split("train"))
    assert len(cut.split("dev")) == round(0.2 * len(train))
    assert sorted(ids(cut.split("train")) + ids(cut.split("dev"))) == sorted(train)
    assert cut.split("test") == NO_DEV.split("test")
    assert ids(cut.split("dev")) == ids(with_dev(NO_DEV, share=0.2, seed=3).split("dev"))
    assert ids(cut.split("dev")) != ids(with_dev(NO_DEV, share=0.2, seed=4).split("dev"))
    assert (
        cut.note
        == f"dev: {len(cut.split('dev'))} of {len(train)} train dialogues held out (seed 3)"
    )


def test_every_label_is_on_both_sides_where_possible() -> None:
    rare = [talk("r1", 2), talk("r2", 2)]
    common = [talk(f"d{i}", 0, 1) for i in range(38)]
    for seed in range(5):
        cut = with_dev(small(*common, *rare), seed=seed)
        for split in ("train", "dev"):
            assert (label_counts(cut.split(split), 3) > 0).all()


def test_the_only_dialogue_with_a_label_stays_in_train() -> None:
    cut = with_dev(small(talk("only", 2, 0, 1), *(talk(f"d{i}", 0, 1) for i in range(9))))
    assert "only" in ids(cut.split("train"))


def test_two_dialogues_are_enough_and_one_is_not() -> None:
    cut = with_dev(small(talk("d1", 0), talk("d2", 0)), share=0.9)
    assert (len(cut.split("train")), len(cut.split("dev"))) == (1, 1)
    with pytest.raises(DataError, match="small has 1 train dialogue"):
        with_dev(small(talk("d1", 0)))


def test_a_second_cut_is_noted_after_the_first() -> None:
    cut = held_out(held_out(NO_DEV, "test", share=0.1), "dev", share=0.1)
    assert cut.note.startswith("test: ")
    assert "; dev: " in cut.note


@pytest.mark.parametrize("k", [2, 5])
def test_each_dialogue_is_dev_in_exactly_one_fold(k: int) -> None:
    folds = k_folds(DATA, k, seed=2)
    every = ids(DATA.split("train") + DATA.split("dev"))
    assert sorted(name for fold in folds for name in ids(fold.split("dev"))) == sorted(every)
    for fold in folds:
        assert sorted(ids(fold.split("train") + fold.split("dev"))) == sorted(every)
        assert fold.split("test") == DATA.split("test")
    sizes = [len(fold.split("dev")) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    assert folds[0].note.startswith(f"fold 1 of {k}: ")


@pytest.mark.parametrize("k", [1, 4])
def test_too_few_dialogues_for_the_folds_are_named(k: int) -> None:
    with pytest.raises(DataError, match=f"{k} folds of 3 dialogues of small: choose 2 to 3"):
        k_folds(small(talk("a", 0), talk("b", 0), talk("c", 0)), k)
    with pytest.raises(DataError, match="folds need at least 2"):
        k_folds(small(talk("a", 0)), k)


def test_joined_dialogues_are_long_and_lose_nothing() -> None:
    long = joined(DATA, 60)
    for split in SPLITS:
        talks = long.split(split)
        assert all(len(talk) >= 60 for talk in talks) or len(talks) == 1
        before = DATA.split(split)
        for name in ("speakers", "sentences"):
            assert [x for d in talks for x in getattr(d, name)] == [
                x for d in before for x in getattr(d, name)
            ]
        for modality in DATA.widths:
            np.testing.assert_array_equal(
                np.concatenate([d.features[modality] for d in talks]),
                np.concatenate([d.features[modality] for d in before]),
            )
        for talk in talks:
            assert len(set(talk.utterance_ids)) == len(talk)
        assert len(set(ids(talks))) == len(talks)


def test_a_short_rest_joins_the_last_conversation() -> None:
    cut = joined(small(*(talk(f"d{i}", 0, 1) for i in range(5))), 4)
    assert [len(d) for d in cut.split("train")] == [4, 6]


def test_restaged_utterances_all_occur_once_with_their_own_content() -> None:
    for split in SPLITS:
        before = {
            f"{d.dialogue_id}:{uid}": (
                d.sentences[i],
                int(d.labels[i]),
                d.features["audio"][i].tolist(),
            )
            for d in DATA.split(split)
            for i, uid in enumerate(d.utterance_ids)
        }
        after = {
            uid: (d.sentences[i], int(d.labels[i]), d.features["audio"][i].tolist())
            for d in restaged(DATA, 0.7).split(split)
            for i, uid in enumerate(d.utterance_ids)
        }
        assert after == before
        assert all(len(d) >= 30 for d in restaged(DATA, 0.7).split(split)) or len(before) < 60
    silent = tuple(replace(d, labels=d.labels * 0 + UNLABELLED) for d in DATA.split("dev"))
    assert (
        restaged(replace(DATA, dialogues={**DATA.dialogues, "dev": silent}), 0.7).split("dev") == ()
    )


@pytest.mark.parametrize(
    ("stay", "low", "high"), [(0.0, 0.1, 0.4), (0.7, 0.7, 0.9), (1.0, 0.9, 1.0)]
)
def test_restaged_emotions_last_as_long_as_the_chance_gives(
    stay: float, low: float, high: float
) -> None:
    data = generated_conversations(200, seed=2)
    talks = restaged(data, stay).split("train")
    assert {s for d in talks for s in d.speakers} == {"a", "b"}
    same = np.concatenate([np.diff(d.labels[speaker_pairs(d)], axis=1)[:, 0] == 0 for d in talks])
    assert low <= same.mean() <= high
    again = restaged(data, stay).split("train")
    assert [d.utterance_ids for d in talks] == [d.utterance_ids for d in again]


def test_without_a_modality_nothing_of_it_is_left() -> None:
    cut = without(DATA, {"video", "persona"})
    assert set(cut.widths) == set(cut.extractors) == {"text", "audio"}
    for dialogue in cut.split("train"):
        assert set(dialogue.features) == {"text", "audio"}
        assert not dialogue.present[:, 2:].any()
        assert dialogue.present[:, 0].all()
        assert all(dialogue.sentences)
    assert not any(without(DATA, {"text"}).split("dev")[0].sentences)
    with pytest.raises(DataError, match="no modality visual"):
        without(DATA, {"visual"})
