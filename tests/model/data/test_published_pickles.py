"""The published feature pickles, written here in the same layout, become data sets."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.data.dataset import SPLITS, DataSet
from model.data.published_pickles import Corpus, read_original
from model.data.reader import read_data_set
from model.data.writer import write_data_set
from model.errors import DataError

SIZES = {"a": 3, "b": 2, "c": 4, "d": 1, "e": 2}


class Files:
    """The three pickles of a corpus: five dialogues of train and, by their lists, one of test."""

    def __init__(self, folder: Path, corpus: Corpus) -> None:
        self.folder, self.corpus = folder, corpus
        ids: list[Any] = list(SIZES) if corpus == "iemocap" else [0, 1, 1039, 1152, 1153]
        sizes = dict(zip(ids, SIZES.values(), strict=True))
        rng = np.random.default_rng(0)

        def vectors(width: int) -> dict[Any, Any]:
            return {
                i: [rng.normal(size=width).astype("f4") for _ in range(n)] for i, n in sizes.items()
            }

        names = {i: [f"{i}_{k}" for k in range(n)] for i, n in sizes.items()}
        speakers: dict[Any, Any] = {i: ["M", "F", "F", "M"][:n] for i, n in sizes.items()}
        if corpus == "meld":
            speakers = {i: [np.eye(9)[k % 2].tolist() for k in range(n)] for i, n in sizes.items()}
        labels = {i: [k % 6 for k in range(n)] for i, n in sizes.items()}
        sentences = {i: [f"sentence {k}" for k in range(n)] for i, n in sizes.items()}
        audio = 1582 if corpus == "iemocap" else 300
        self.features: list[Any] = [
            names, speakers, labels, vectors(4), vectors(audio), vectors(342), sentences,
            ids[:-1], {ids[-1]},
        ]  # fmt: skip
        layers = [vectors(8) for _ in range(4)]
        self.roberta: list[Any] = [None, None, *layers, *[None] * 4]
        if corpus == "meld":
            self.features.append(None)
            self.roberta.insert(0, None)
        self.layers = layers
        self.persona: Any = {i: rng.random((n, 5)).astype("f4") for i, n in sizes.items()}
        self.ids = ids

    def read(self, with_persona: bool = True) -> DataSet:
        paths = [self.folder / f"{name}.pkl" for name in ("features", "roberta", "persona")]
        values = (tuple(self.features), tuple(self.roberta), self.persona)
        for path, value in zip(paths, values, strict=True):
            path.write_bytes(pickle.dumps(value, 2))
        return read_original(self.corpus, paths[0], paths[1], paths[2] if with_persona else None)


@pytest.fixture
def iemocap(tmp_path: Path) -> Files:
    return Files(tmp_path, "iemocap")


@pytest.fixture
def meld(tmp_path: Path) -> Files:
    return Files(tmp_path, "meld")


def test_text_is_the_mean_of_the_four_layers(meld: Files) -> None:
    first = meld.read().split("train")[0]
    mean = np.mean([layer[0] for layer in meld.layers], axis=0)
    np.testing.assert_allclose(first.features["text"], mean, rtol=1e-6)


def test_meld_is_split_by_its_lists_and_its_dev_ids(meld: Files) -> None:
    data = meld.read()
    assert {split: [d.dialogue_id for d in data.split(split)] for split in SPLITS} == {
        "train": ["train_0", "train_1"],
        "dev": ["dev_1039", "dev_1152"],
        "test": ["test_1153"],
    }
    assert data.widths == {"text": 8, "audio": 300, "video": 342, "persona": 5}
    assert data.split("train")[0].speakers == ("speaker 0", "speaker 1", "speaker 0")
    assert len(data.labels) == 7
    assert "last four layers averaged" in data.extractors["text"]


def test_iemocap_holds_a_dev_split_out_and_says_so(iemocap: Files) -> None:
    data = iemocap.read()
    assert [len(data.split(split)) for split in SPLITS] == [3, 1, 1]
    assert data.note == "dev: 1 of 4 train dialogues held out (seed 0)"
    assert data.split("test")[0].dialogue_id == "e"
    assert data.split("test")[0].speakers == ("M", "F")
    assert data.labels[:2] == ("happy", "sad")
    assert data.widths == {"text": 8, "audio": 1582, "video": 342, "persona": 5}


@pytest.mark.parametrize("corpus", ["meld", "iemocap"])
def test_an_imported_set_is_one_of_the_documented_format(tmp_path: Path, corpus: Corpus) -> None:
    data = Files(tmp_path, corpus).read()
    write_data_set(tmp_path / "set", data)
    back = read_data_set(tmp_path / "set")
    assert (back.labels, back.widths, back.extractors) == (
        data.labels,
        data.widths,
        data.extractors,
    )
    for split in SPLITS:
        for mine, theirs in zip(data.split(split), back.split(split), strict=True):
            assert mine.sentences == theirs.sentences
            for modality in data.widths:
                np.testing.assert_array_equal(mine.features[modality], theirs.features[modality])


def test_personas_may_lack(meld: Files) -> None:
    data = meld.read(with_persona=False)
    assert "persona" not in data.widths
    assert not data.split("train")[0].present[:, 3].any()


def first(part: int, value: Any) -> Any:
    def bend(files: Files) -> None:
        files.features[part][files.ids[0]] = value

    return bend


def roberta_short(files: Files) -> None:
    files.layers[2][files.ids[0]].pop()


def roberta_narrow(files: Files) -> None:
    files.layers[2][files.ids[0]] = [np.zeros(7)] * 3


def persona_missing(files: Files) -> None:
    del files.persona[files.ids[1]]


def swapped(files: Files) -> None:
    files.features, files.roberta = files.roberta, files.features


def in_both_lists(files: Files) -> None:
    files.features[8] = [files.ids[0]]


@pytest.mark.parametrize(
    ("bend", "message"),
    [
        (first(2, [0, 1]), r"features.pkl, position 2: dialogue 0 has 2 utterances, but 3"),
        (first(2, [0, 1, 7]), r"position 2: dialogue 0 has labels \[0, 1, 7\], expected 0..6"),
        (first(1, [[0, 0, 0]] * 3), r"position 1: dialogue 0 has speaker \[0, 0, 0\]"),
        (first(4, [np.zeros(300)] * 2 + [np.zeros(299)]), r"vectors of \[299, 300\] numbers"),
        (first(4, [np.zeros(299)] * 3), "audio of 300 numbers, the first one 299"),
        (first(5, [["a"] * 342] * 3), "position 5: dialogue 0 holds no numbers"),
        (first(6, "so"), "position 6: dialogue 0 is no list"),
        (roberta_short, r"roberta.pkl, position 5: dialogue 0 has 2 utterances, but 3"),
        (roberta_narrow, r"roberta.pkl: dialogue 0 has layers of \[8, 8, 7, 8\]"),
        (persona_missing, r"persona.pkl, position 0: no dialogue 1"),
        (swapped, "holds a tuple of 11, expected a tuple of 10"),
        (in_both_lists, "dialogue '0' is in the train and the test list"),
    ],
)
def test_a_misfit_names_file_position_dialogue_and_sizes(
    meld: Files, bend: Any, message: str
) -> None:
    meld.read()
    bend(meld)
    with pytest.raises(DataError, match=message):
        meld.read()
