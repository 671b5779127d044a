"""A data set is written whole, or not at all, and reads back as it was."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.data.dataset import DataSet, Dialogue
from model.data.reader import read_data_set
from model.data.writer import write_data_set as write
from model.errors import DataError
from tests.fakes.conversations import generated_conversations

DATA = generated_conversations(8, seed=2)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def with_first(data: DataSet, **changes: Any) -> DataSet:
    """`data` with its first train dialogue changed."""
    first, *others = data.split("train")
    return replace(
        data, dialogues={**data.dialogues, "train": (replace(first, **changes), *others)}
    )


def test_equal_sets_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, DATA)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_labels_beyond_eight_bits_read_back(tmp_path: Path) -> None:
    first = DATA.split("train")[0]
    many = replace(DATA, labels=tuple(f"label {i}" for i in range(300)))
    write(tmp_path, with_first(many, labels=np.full(len(first), 299)))
    assert read_data_set(tmp_path).split("train")[0].labels[0] == 299
    with np.load(tmp_path / "generated_features.npz") as arrays:
        assert arrays["label"].dtype == np.int16
        assert arrays["label"][0] == 299


@pytest.mark.parametrize("label", [7, -2])
def test_a_label_the_set_does_not_have_is_refused_and_nothing_written(
    tmp_path: Path, label: int
) -> None:
    first = DATA.split("train")[0]
    with pytest.raises(DataError, match=f"label {label} does not fit 7 labels"):
        write(tmp_path / "new", with_first(DATA, labels=np.full(len(first), label)))
    assert not (tmp_path / "new").exists()


def test_numbers_beyond_float16_are_stored_as_float32(tmp_path: Path) -> None:
    first = DATA.split("train")[0]
    exact = np.full_like(first.features["text"], 300.1)
    write(tmp_path, with_first(DATA, features={**first.features, "text": exact}))
    back: Dialogue = read_data_set(tmp_path).split("train")[0]
    np.testing.assert_array_equal(back.features["text"], exact)


def test_means_in_the_meta_file_are_those_of_the_train_split(tmp_path: Path) -> None:
    write(tmp_path, DATA)

    meta = json.loads((tmp_path / "generated_meta.json").read_text("utf-8"))
    train = DATA.split("train")
    rows = np.concatenate([d.features["audio"][d.present[:, 1]] for d in train])
    np.testing.assert_allclose(meta["audio_mean"], rows.mean(0), rtol=1e-4, atol=1e-6)


def test_a_set_written_again_leaves_nothing_of_the_one_before(tmp_path: Path) -> None:
    write(tmp_path, DATA)
    fewer = replace(DATA, widths={"text": 384}, extractors={"text": "generated"})
    write(tmp_path, fewer)
    assert read_data_set(tmp_path).widths == {"text": 384}
    assert not (tmp_path / "generated_persona.npz").exists()


def test_a_full_disk_leaves_the_set_that_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, DATA)
    before = contents(tmp_path)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, generated_conversations(8, seed=3))
    assert contents(tmp_path) == before
