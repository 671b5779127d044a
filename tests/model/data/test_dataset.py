"""Reading, writing and generating labelled conversations."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from model.data.dataset import (
    SPLITS,
    UNLABELLED,
    DataSet,
    column_statistics,
    label_counts,
    speaker_pairs,
)
from model.data.reader import read_data_set
from model.data.writer import write_data_set
from model.errors import DataError
from model.interface import INPUTS
from tests.fakes.conversations import generated_conversations


@pytest.fixture(scope="module")
def generated() -> DataSet:
    return generated_conversations(40, seed=7)


def test_a_written_set_reads_back_equal(generated: DataSet, tmp_path: Path) -> None:
    write_data_set(tmp_path, generated)
    back = read_data_set(tmp_path)
    assert (back.name, back.labels, back.widths) == (
        "generated",
        generated.labels,
        generated.widths,
    )
    assert back.extractors == generated.extractors
    for split in SPLITS:
        for mine, theirs in zip(generated.split(split), back.split(split), strict=True):
            assert mine.dialogue_id == theirs.dialogue_id
            assert mine.utterance_ids == theirs.utterance_ids
            assert mine.speakers == theirs.speakers
            assert mine.sentences == theirs.sentences
            np.testing.assert_array_equal(mine.labels, theirs.labels)
            np.testing.assert_array_equal(mine.present, theirs.present)
            for modality in INPUTS:
                np.testing.assert_array_equal(mine.features[modality], theirs.features[modality])


def test_equal_seeds_generate_equal_conversations_and_others_differ() -> None:
    one, same, other = (generated_conversations(10, seed=seed) for seed in (3, 3, 4))
    first, again = one.split("train")[0], same.split("train")[0]
    assert first.features["text"].tobytes() == again.features["text"].tobytes()
    assert first.features["text"].tobytes() != other.split("train")[0].features["text"].tobytes()


def test_every_split_of_the_generated_set_has_dialogues_and_no_dialogue_is_in_two(
    generated: DataSet,
) -> None:
    ids = [d.dialogue_id for split in SPLITS for d in generated.split(split)]
    assert len(ids) == len(set(ids)) == 40
    assert all(generated.split(split) for split in SPLITS)


def test_statistics_are_of_the_rows_that_are_present(generated: DataSet) -> None:
    train = generated.split("train")
    mean, std = column_statistics(train)["audio"]
    rows = np.concatenate([d.features["audio"][d.present[:, 1]] for d in train])
    assert len(rows) < sum(len(d) for d in train)
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(std, rows.std(0), rtol=1e-4)


def test_a_speakers_pairs_are_that_speakers_consecutive_utterances(generated: DataSet) -> None:
    for dialogue in generated.split("train"):
        pairs = speaker_pairs(dialogue)
        assert len(pairs) == len(dialogue) - len(set(dialogue.speakers))
        for before, now in pairs:
            assert before < now
            assert dialogue.speakers[before] == dialogue.speakers[now]
            assert dialogue.speakers[now] not in dialogue.speakers[before + 1 : now]


def test_an_utterance_without_a_label_is_read_and_counts_for_nothing(
    generated: DataSet, tmp_path: Path
) -> None:
    write_data_set(tmp_path, generated)
    path = tmp_path / "generated_dialogues.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    del lines[0]["utterances"][0]["label"], lines[0]["utterances"][0]["emotion"]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    train = read_data_set(tmp_path).split("train")
    assert train[0].labels[0] == UNLABELLED
    assert label_counts(train, 7).sum() == sum(len(d) for d in train) - 1


def test_a_column_that_is_not_a_number_becomes_the_train_mean_of_the_meta_file(
    generated: DataSet, tmp_path: Path
) -> None:
    write_data_set(tmp_path, generated)
    path = tmp_path / "generated_features.npz"
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    row = int(np.flatnonzero(arrays["audio_mask"])[0])
    arrays["audio_raw"][row, 3] = np.nan
    np.savez(path, allow_pickle=False, **arrays)
    meta = json.loads((tmp_path / "generated_meta.json").read_text("utf-8"))
    audio = np.concatenate([d.features["audio"] for d in read_data_set(tmp_path).split("train")])
    assert audio[row, 3] == np.float32(meta["audio_mean"][3])
    assert np.isfinite(audio).all()


def test_an_absent_vector_is_zero_and_marked_absent(generated: DataSet) -> None:
    dialogues = generated.split("train")
    audio = np.concatenate([d.features["audio"] for d in dialogues])
    present = np.concatenate([d.present[:, 1] for d in dialogues])
    assert 0 < present.sum() < len(present)
    assert not audio[~present].any()
    assert audio[present].any(1).all()


def test_an_empty_folder_is_refused_with_the_files_it_needs(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="EMOTRACK_DATA"):
        read_data_set(tmp_path)


def test_a_truncated_archive_is_named(generated: DataSet, tmp_path: Path) -> None:
    write_data_set(tmp_path, generated)
    path = tmp_path / "generated_features.npz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match="generated_features"):
        read_data_set(tmp_path)


def test_the_real_folder_reads_as_its_readme_states(data_folder: Path | None) -> None:
    if data_folder is None:
        pytest.skip("no real conversations here (EMOTRACK_DATA)")
    meld = read_data_set(data_folder, "meld")
    assert [len(meld.split(s)) for s in SPLITS] == [1038, 114, 280]
    assert [sum(len(d) for d in meld.split(s)) for s in SPLITS] == [9989, 1109, 2610]
    assert [sum(len(speaker_pairs(d)) for d in meld.split(s)) for s in SPLITS] == [7174, 766, 1864]
    assert meld.widths == {"text": 384, "audio": 8, "video": 17, "persona": 5}
    emory = read_data_set(data_folder, "emorynlp")
    assert emory.widths == {"text": 384}
    assert not emory.split("dev")[0].present[:, 1:].any()
