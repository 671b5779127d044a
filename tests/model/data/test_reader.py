"""A data-set folder is read as docs/data.md says, and what departs from that is named."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.data.dataset import UNLABELLED, DataSet
from model.data.reader import read_data_set
from model.errors import DataError

NAN, INF = float("nan"), float("inf")


@dataclass
class Folder:
    """A set of two train dialogues (2 and 1 utterances), one of dev and one of test, to be bent."""

    path: Path
    meta: dict[str, Any] = field(default_factory=lambda: {"labels": ["calm", "glad", "mad"]})
    arrays: dict[str, Any] = field(default_factory=dict)
    lines: list[Any] = field(default_factory=list)
    persona: Any = None
    plain: bool = False

    def __post_init__(self) -> None:
        self.arrays["text"] = np.arange(10, dtype=np.float16).reshape(5, 2) + 1
        for split, rows in (("train", (0, 1)), ("train", (2,)), ("dev", (3,)), ("test", (4,))):
            utterances = [
                {"row": r, "uid": f"u{r}", "speaker": "ann", "text": f"so {r}", "label": r % 3}
                for r in rows
            ]
            line = {"dialogue_id": f"d{rows[0]}", "split": split, "utterances": utterances}
            self.lines.append(line)

    def utterance(self, row: int) -> dict[str, Any]:
        """The utterance at `row`, to be changed."""
        utterance: dict[str, Any] = next(
            u for line in self.lines for u in line["utterances"] if u["row"] == row
        )
        return utterance

    def read(self) -> DataSet:
        (self.path / "tiny_meta.json").write_text(json.dumps(self.meta), "utf-8")
        np.savez(self.path / "tiny_features.npz", allow_pickle=False, **self.arrays)
        if self.persona is not None:
            np.savez(self.path / "tiny_persona.npz", persona=np.asarray(self.persona))
        text = "".join(
            line if isinstance(line, str) else json.dumps(line) + "\n" for line in self.lines
        )
        if self.plain:
            (self.path / "tiny_dialogues.jsonl").write_text(text, "utf-8")
        else:
            (self.path / "tiny_dialogues.jsonl.gz").write_bytes(gzip.compress(text.encode()))
        return read_data_set(self.path)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def column(data: DataSet, modality: str, split: Any = "train") -> list[list[float]]:
    values: list[list[float]] = np.concatenate(
        [d.features[modality] for d in data.split(split)]
    ).tolist()
    return values


def present(data: DataSet, modality: int) -> list[bool]:
    shown: list[bool] = np.concatenate(
        [d.present[:, modality] for d in data.split("train")]
    ).tolist()
    return shown


def test_a_set_of_any_labels_widths_and_speakers_is_read(folder: Folder) -> None:
    folder.utterance(1)["speaker"] = 7
    data = folder.read()
    assert (data.name, data.labels, data.widths) == ("tiny", ("calm", "glad", "mad"), {"text": 2})
    assert data.split("train")[0].speakers == ("ann", "7")
    assert column(data, "text") == [[1, 2], [3, 4], [5, 6]]
    assert data.split("dev")[0].labels.tolist() == [0]


def test_plain_json_lines_serve_as_well_as_gzipped_ones(folder: Folder) -> None:
    folder.plain = True
    folder.lines.insert(1, "\n")
    assert len(folder.read().split("train")) == 2


@pytest.mark.parametrize("split", ["dev", "test"])
def test_a_missing_split_is_empty(folder: Folder, split: Any) -> None:
    folder.lines = [line for line in folder.lines if line["split"] != split]
    assert folder.read().split(split) == ()


def test_a_set_without_text_vectors_has_only_sentences(folder: Folder) -> None:
    del folder.arrays["text"]
    folder.arrays["audio_raw"] = np.ones((5, 63))
    data = folder.read()
    assert data.widths == {"audio": 63}
    assert data.split("train")[0].sentences == ("so 0", "so 1")
    assert present(data, 0) == [False] * 3


def test_a_set_without_any_vector_says_its_rows_by_its_labels(folder: Folder) -> None:
    folder.arrays = {"label": np.zeros(5, np.int8)}
    assert folder.read().widths == {}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_numbers_of_any_kind_are_read(folder: Folder, dtype: Any) -> None:
    folder.arrays["text"] = np.full((5, 3), 2, dtype)
    assert column(folder.read(), "text")[0] == [2, 2, 2]


@pytest.mark.parametrize("key", ["visual", "video"])
def test_video_is_called_visual_or_video(folder: Folder, key: str) -> None:
    folder.arrays[f"{key}_raw"] = np.ones((5, 4))
    assert folder.read().widths["video"] == 4


def test_raw_columns_are_taken_where_both_are_there(folder: Folder) -> None:
    folder.arrays |= {"audio": np.full((5, 2), 0.1), "audio_raw": np.full((5, 2), 300.0)}
    data = folder.read()
    assert column(data, "audio")[0] == [300, 300]
    assert "z-scored" not in data.extractors["audio"]


def test_z_scored_columns_alone_are_taken_and_a_row_of_zeros_is_absent(folder: Folder) -> None:
    folder.meta["audio_mean"] = [300.0, 60.0]  # of the raw columns: of no use here
    folder.arrays["audio"] = np.array([[1, 2], [0, 0], [NAN, 4], [1, 1], [1, 1]])
    data = folder.read()
    assert present(data, 1) == [True, False, True]
    assert column(data, "audio") == [[1, 2], [0, 0], [1, 4]]
    assert data.extractors["audio"].endswith("(z-scored)")


def test_a_row_of_nan_is_absent_with_and_without_a_mask(folder: Folder) -> None:
    folder.arrays["audio_raw"] = np.array([[NAN, NAN], [3, 3], [0, 0], [1, 1], [1, 1]])
    assert present(folder.read(), 1) == [False, True, True]
    folder.arrays["audio_mask"] = np.array([1, 0, 1, 1, 1])
    data = folder.read()
    assert present(data, 1) == [False, False, True]
    assert column(data, "audio") == [[0, 0]] * 3


def test_a_hole_is_filled_with_the_mean_over_train_where_the_meta_file_has_none(
    folder: Folder,
) -> None:
    folder.arrays["audio_raw"] = np.array([[2, 9], [NAN, 9], [6, 9], [900, 9], [900, 9]])
    assert column(folder.read(), "audio") == [[2, 9], [4, 9], [6, 9]]
    folder.meta["audio_mean"] = [50, 0]
    assert column(folder.read(), "audio")[1] == [50, 9]


def test_a_column_never_measured_is_zero(folder: Folder) -> None:
    folder.arrays["audio_raw"] = np.array([[1, NAN]] * 5)
    assert column(folder.read(), "audio")[0] == [1, 0]


def test_personas_may_lack_and_may_be_absent_row_by_row(folder: Folder) -> None:
    assert "persona" not in folder.read().widths
    folder.persona = [[1, 2]] + [[NAN, NAN]] + [[3, 4]] * 3
    data = folder.read()
    assert data.widths["persona"] == 2
    assert present(data, 3) == [True, False, True]


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        ({"label": 2}, 2),
        ({"label": 2.0}, 2),
        ({"label": "mad"}, 2),
        ({"emotion": "mad"}, 2),
        ({"label": 2, "emotion": "furious"}, 2),
        ({"label": None, "emotion": "unclear"}, UNLABELLED),
        ({"label": -1}, UNLABELLED),
        ({}, UNLABELLED),
    ],
)
def test_a_label_is_an_index_or_a_name_or_unlabelled(
    folder: Folder, fields: dict[str, Any], label: int
) -> None:
    del folder.utterance(0)["label"]
    folder.utterance(0).update(fields)
    assert folder.read().split("train")[0].labels[0] == label


@pytest.mark.parametrize("text", [None, ""])
def test_an_utterance_without_a_sentence_is_fine_where_a_vector_is(
    folder: Folder, text: str | None
) -> None:
    folder.utterance(1)["text"] = text
    assert folder.read().split("train")[0].sentences == ("so 0", "")


def test_an_utterance_without_an_id_is_called_by_its_place(folder: Folder) -> None:
    del folder.utterance(1)["uid"]
    assert folder.read().split("train")[0].utterance_ids == ("u0", "1")


def array(key: str, values: Any) -> Callable[[Folder], None]:
    return lambda folder: folder.arrays.__setitem__(key, np.asarray(values))


def edit(at: int, **fields: Any) -> Callable[[Folder], None]:
    return lambda folder: folder.utterance(at).update(fields)


def line(number: int, **fields: Any) -> Callable[[Folder], None]:
    return lambda folder: folder.lines[number - 1].update(fields)


def meta(**fields: Any) -> Callable[[Folder], None]:
    return lambda folder: folder.meta.update(fields)


def no_sentence(folder: Folder) -> None:
    folder.utterance(1)["text"] = ""
    folder.arrays["text"][1] = NAN


def no_train(folder: Folder) -> None:
    folder.lines = folder.lines[2:]


def no_columns(folder: Folder) -> None:
    folder.arrays = {"words": np.ones((5, 2))}


def raw_line(text: str) -> Callable[[Folder], None]:
    return lambda folder: folder.lines.insert(1, text)


def audio_with_means(folder: Folder) -> None:
    folder.arrays["audio_raw"] = np.array([[1, NAN]] * 5)
    folder.meta["audio_mean"] = [1, 2, 3]


MISFITS: list[tuple[str, Callable[[Folder], None], str]] = [
    ("rows missing", array("audio_raw", np.ones((4, 2))), r"npz: `text` has 5 rows.*_raw` has 4"),
    ("one dimension", array("text", np.ones(5)), r"npz: `text` has shape \(5,\)"),
    ("no width", array("text", np.ones((5, 0))), r"`text` has shape \(5, 0\)"),
    ("words for numbers", array("text", [["a"]] * 5), r"`text` holds <U1, expected numbers"),
    ("infinite", array("text", [[1, 2]] * 4 + [[1, INF]]), "`text` row 4, column 1 is inf"),
    ("beyond float32", array("text", [[1e300]] * 5), r"`text` row 0, column 0 is 1e\+300"),
    ("mask of columns", array("text_mask", np.ones((5, 2), bool)), r"`text_mask` has shape \(5, 2"),
    ("both videos", lambda f: f.arrays.update(visual=np.ones((5, 1)), video=np.ones((5, 1))),
     "holds both visual and video"),
    ("no array known", no_columns, r"holds none of text.*it has: words"),
    ("few personas", lambda f: setattr(f, "persona", np.ones((3, 5))), "3 rows, tiny_fea.* has 5"),
    ("means of another width", audio_with_means, r"`audio_mean` has shape \(3,\).* 2 columns"),
    ("row beyond", edit(2, row=5), r"jsonl.gz, line 2, utterance 0: row 5 is none .* 5 rows"),
    ("row of text", edit(2, row="2"), "row '2' is none"),
    ("row twice", edit(2, row=0), r"line 2, utterance 0: row 0 is already .*line 1, utterance 0"),
    ("unknown label", edit(1, label="sad"), r"line 1, utterance 1: unknown label 'sad'.*'calm'"),
    ("unknown emotion", lambda f: (edit(1, emotion="sad")(f), f.utterance(1).pop("label"))[0],
     "unknown label 'sad'"),
    ("label beyond", edit(1, label=3), r"label 3 is none of 0..2"),
    ("label below", edit(1, label=-2), r"label -2 is none of 0..2"),
    ("label between", edit(1, label=0.5), "label 0.5 is neither"),
    ("label nan", edit(1, label=NAN), "label nan is neither"),
    ("two labels", edit(1, label=1, emotion="mad"), "label 1 is 'glad', but emotion says 'mad'"),
    ("id twice", edit(1, uid="u0"), "utterance 1: utterance id 'u0' is used twice"),
    ("speaker empty", edit(1, speaker=""), "utterance 1: `speaker` is ''"),
    ("speaker missing", edit(1, speaker=None), "utterance 1: `speaker` is None"),
    ("text of a number", edit(1, text=5), "`text` is 5"),
    ("no sentence", no_sentence, r"line 1, utterance 1: neither a sentence nor a vector \(row 1"),
    ("empty dialogue", line(2, utterances=[]), "line 2: dialogue 'd2' has no utterances"),
    ("dialogue twice", line(2, dialogue_id="d0"), "line 2: dialogue 'd0' of train is already"),
    ("dialogue missing", line(2, dialogue_id=None), "line 2: `dialogue_id` is None"),
    ("split unknown", line(2, split="val"), "line 2: split 'val' is none of train, dev, test"),
    ("split missing", line(2, split=None), "line 2: split None"),
    ("no train", no_train, "no dialogue has the split train"),
    ("no object", raw_line("[1]\n"), "line 2: list, expected an object"),
    ("no JSON", raw_line("{\n"), "line 2: no JSON"),
    ("utterance no object", line(2, utterances=["hi"]), "line 2, utterance 0: str, expected"),
    ("no labels", meta(labels=[]), "meta.json names no labels"),
    ("label twice in meta", meta(labels=["a", "a"]), "'a' is no name of its own"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("bend", "sentence"), [m[1:] for m in MISFITS], ids=[m[0] for m in MISFITS]
)
def test_a_misfit_names_its_file_its_place_and_both_sizes(
    folder: Folder, bend: Callable[[Folder], Any], sentence: str
) -> None:
    folder.read()
    bend(folder)
    with pytest.raises(DataError, match=sentence) as met:
        folder.read()
    assert str(folder.path / "tiny_") in str(met.value)


@pytest.mark.parametrize("name", ["tiny_features.npz", "tiny_dialogues.jsonl.gz", "tiny_meta.json"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_truncated_file_is_named(folder: Folder, name: str, share: float) -> None:
    folder.read()
    path = folder.path / name
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(DataError, match=name):
        read_data_set(folder.path)


def test_a_missing_file_and_a_doubled_one_are_named(folder: Folder) -> None:
    folder.read()
    folder.plain = True
    with pytest.raises(DataError, match=r"both .*jsonl\.gz and tiny_dialogues\.jsonl are there"):
        folder.read()
    (folder.path / "tiny_features.npz").unlink()
    with pytest.raises(DataError, match="tiny_features"):
        read_data_set(folder.path)


def test_a_bare_array_is_no_archive(folder: Folder) -> None:
    folder.read()
    with (folder.path / "tiny_features.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(DataError, match=r"no \.npz archive"):
        read_data_set(folder.path)


def test_pickled_objects_are_refused(folder: Folder) -> None:
    folder.read()
    np.savez(folder.path / "tiny_features.npz", text=np.array([{"a": 1}], object))
    with pytest.raises(DataError, match="tiny_features"):
        read_data_set(folder.path)
