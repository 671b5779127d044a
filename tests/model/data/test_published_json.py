"""The JSON and feature files of HRG-SSA's published code, written here in the same layout."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.data.dataset import SPLITS, DataSet
from model.data.published_json import read_original_json
from model.data.published_pickles import Corpus
from model.data.reader import read_data_set
from model.data.writer import write_data_set
from model.errors import DataError

DIALOGUES = {"train": {"0": 3, "7": 2}, "dev": {"0": 2}, "test": {"0": 1, "3": 2}}
MELD = (("joy", "positive"), ("neutral", "neutral"), ("anger", "negative"))
IEMOCAP = (("happiness", "positive"), ("sadness", "negative"), ("frustration", "negative"))


class Files:
    """A folder of a corpus; what is changed before `read` is what it then finds."""

    def __init__(self, folder: Path, corpus: Corpus) -> None:
        self.folder, self.corpus, self.audio_name = folder, corpus, "opensmile"
        rng = np.random.default_rng(0)
        self.json: dict[str, Any] = {}
        self.audio: dict[str, dict[str, Any]] = {}
        self.video: dict[str, dict[str, Any]] = {}
        for split, sizes in DIALOGUES.items():
            by_length: dict[str, Any] = {}
            self.audio[split], self.video[split] = {}, {}
            for name, turns in sizes.items():
                keys = [f"dia{name}_utt{n}" for n in range(turns)]
                utterances = {str(n): self._row(n, key) for n, key in enumerate(keys)}
                by_length.setdefault(str(turns), {})[name] = utterances
                for key in keys:
                    self.audio[split][key] = rng.normal(size=(3, 6)).astype("f4")
                    self.video[split][key] = rng.normal(size=4)
            self.json[split] = by_length

    def _row(self, n: int, key: str) -> dict[str, Any]:
        emotion, sentiment = (MELD if self.corpus == "meld" else IEMOCAP)[n]
        who = "Anna" if self.corpus == "meld" else ("male", "female")[n % 2]
        row = {
            "Sr_No": str(n), "Utterance": f"{who}: So it is {n}: yes", "Speaker": who,
            "Emotion": emotion, "Sentiment": sentiment, "feature_key": key,
            "Sentiment_Label": f"… <bos_emotion> {emotion} <eos_emotion> …", "Emotion_Label": 3,
        }  # fmt: skip
        return row if self.corpus == "meld" else {name.lower(): v for name, v in row.items()}

    def read(self) -> DataSet:
        for split, content in self.json.items():
            (self.folder / f"{split}_data.json").write_text(json.dumps(content))
        for name, vectors in ((f"audio_features_{self.audio_name}", self.audio),
                              ("video_features", self.video)):  # fmt: skip
            if vectors:
                (self.folder / f"{name}.pkl").write_bytes(pickle.dumps(vectors))
        return read_original_json(self.corpus, self.folder, audio=self.audio_name)


@pytest.fixture
def meld(tmp_path: Path) -> Files:
    return Files(tmp_path, "meld")


@pytest.fixture
def iemocap(tmp_path: Path) -> Files:
    return Files(tmp_path, "iemocap")


def test_sentences_come_without_the_name_and_labels_in_our_order(meld: Files) -> None:
    data = meld.read()
    assert {split: [d.dialogue_id for d in data.split(split)] for split in SPLITS} == {
        "train": ["train_0", "train_7"],
        "dev": ["dev_0"],
        "test": ["test_0", "test_3"],
    }
    first = data.split("train")[0]
    assert first.sentences == ("So it is 0: yes", "So it is 1: yes", "So it is 2: yes")
    assert set(first.speakers) == {"Anna"}
    assert [data.labels[label] for label in first.labels] == ["joy", "neutral", "anger"]


def test_iemocaps_words_are_our_labels(iemocap: Files) -> None:
    first = iemocap.read().split("train")[0]
    assert first.speakers == ("male", "female", "male")
    assert first.labels.tolist() == [0, 1, 5]  # happy, sad, frustrated


def test_frames_are_averaged_and_a_missing_vector_is_an_absent_one(meld: Files) -> None:
    frames = meld.audio["train"]["dia0_utt1"]
    del meld.video["train"]["dia0_utt2"]
    data = meld.read()
    assert dict(data.widths) == {"audio": 6, "video": 4}
    first = data.split("train")[0]
    np.testing.assert_allclose(first.features["audio"][1], frames.mean(0), rtol=1e-6)
    assert first.present[:, 1].all()
    assert first.present[:, 2].tolist() == [True, True, False]
    assert not first.features["video"][2].any()


def test_a_folder_without_dev_holds_some_of_train_out_and_never_test(iemocap: Files) -> None:
    del iemocap.json["dev"]
    data = iemocap.read()
    assert len(data.split("train")) == len(data.split("dev")) == 1
    assert {d.dialogue_id for d in data.split("dev")} < {"train_0", "train_7"}
    assert [d.dialogue_id for d in data.split("test")] == ["test_0", "test_3"]


def test_hubert_keys_end_in_its_name(meld: Files) -> None:
    meld.audio_name = "hubert_base"
    meld.audio = {
        split: {f"{key}_hubert_base": v for key, v in vectors.items()}
        for split, vectors in meld.audio.items()
    }
    data = meld.read()
    assert data.extractors["audio"] == "meld audio: hubert_base"
    assert data.split("train")[0].present[:, 1].all()


def test_a_set_of_sentences_alone_is_a_data_set(meld: Files, tmp_path: Path) -> None:
    meld.audio, meld.video = {}, {}
    write_data_set(tmp_path / "out", meld.read())
    again = read_data_set(tmp_path / "out")
    assert dict(again.widths) == {}
    assert again.split("test")[1].sentences[1] == "So it is 1: yes"


def no_emotion(files: Files) -> None:
    files.json["train"]["3"]["0"]["1"]["Emotion"] = "bored"


def no_speaker(files: Files) -> None:
    del files.json["train"]["3"]["0"]["1"]["Speaker"]


def another_width(files: Files) -> None:
    files.video["train"]["dia7_utt1"] = np.zeros(5)


def not_finite(files: Files) -> None:
    files.audio["train"]["dia7_utt1"][0, 0] = np.nan


def no_splits(files: Files) -> None:
    files.video = {"dia0_utt0": files.video["train"]}


def twice(files: Files) -> None:
    files.json["train"]["9"] = {"0": files.json["train"]["3"]["0"]}


def empty(files: Files) -> None:
    files.json["train"] = {}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_emotion, "dialogue '0', utterance '1': emotion 'bored', expected one of neutral"),
        (no_speaker, "dialogue '0', utterance '1': no text in field 'speaker'"),
        (another_width, "'dia7_utt1' has 5 numbers, the first vector 4"),
        (not_finite, "'dia7_utt1' holds NaN or Inf"),
        (no_splits, "video_features.pkl holds no dict of splits"),
        (twice, "dialogue '0' is there twice"),
        (empty, "expected an object with something in it"),
    ],
)
def test_a_misfit_is_named(meld: Files, spoil: Callable[[Files], None], message: str) -> None:
    spoil(meld)
    with pytest.raises(DataError) as met:
        meld.read()
    assert message in str(met.value)


def test_a_folder_that_holds_none_of_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*train_data\.json"):
        read_original_json("meld", tmp_path)
