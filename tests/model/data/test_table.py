"""Tables of utterances are read under the names people use; a bad row is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.data.table import read_table
from model.errors import DataError

OURS = {"conversation_id": "c1", "speaker_id": "ann", "text": "so, what?", "emotion": "calm"}


def written(folder: Path, text: str, name: str = "talk.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        'conversation_id,speaker_id,text,emotion\nc1,ann,"so, what?",calm\n',
        '\ufeffDialogue_ID,Speaker,Utterance,Label\r\nc1,ann,"so, what?",calm\r\n',
        "dialogue-id;speaker;sentence;emotion\nc1;ann;so, what?;calm\n",
        "Call ID\tUser\tTranscript\tEmotion\nc1\tann\tso, what?\tcalm\n\n",
    ],
)
def test_a_csv_is_read_by_any_usual_name_and_separator(tmp_path: Path, text: str) -> None:
    (row,) = read_table(written(tmp_path, text))
    assert row.cells == OURS
    assert row.place.endswith("talk.csv, line 2")


def test_json_lines_are_read_the_same_way(tmp_path: Path) -> None:
    line = '{"dialogue_id": "c1", "speaker": "ann", "text": "so, what?", "label": "calm", "x": 1}'
    (row,) = read_table(written(tmp_path, f"\n{line}\n", "talk.jsonl"))
    assert row.cells == OURS
    assert row.place.endswith("talk.jsonl, line 2")


def test_our_own_name_goes_before_an_alias(tmp_path: Path) -> None:
    (row,) = read_table(written(tmp_path, "label,emotion\n3,calm\n"))
    assert row.cells == {"emotion": "calm"}


def test_a_column_can_be_named(tmp_path: Path) -> None:
    path = written(tmp_path, "who,speaker\nann,7\n")
    (row,) = read_table(path, {"speaker_id": "who"})
    assert row.cells == {"speaker_id": "ann"}
    with pytest.raises(DataError, match=r"talk\.csv has no column 'whom' \(it has: who, speaker\)"):
        list(read_table(path, {"speaker_id": "whom"}))


def test_an_empty_cell_is_left_out(tmp_path: Path) -> None:
    (row,) = read_table(written(tmp_path, "text,emotion\nhi, \n"))
    assert row.cells == {"text": "hi"}


def test_a_sentence_over_two_lines_is_one_row(tmp_path: Path) -> None:
    rows = list(read_table(written(tmp_path, 'text,emotion\n"so\nwhat",calm\nhi,mad\n')))
    assert [row.cells["text"] for row in rows] == ["so\nwhat", "hi"]
    assert rows[1].place.endswith("line 4")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("talk.csv", "text,emotion\nso, what?,calm\n", "line 2: 3 cells, the header has 2"),
        ("talk.csv", 'text,emotion\n"so,calm\n', "cannot read .*talk.csv"),
        ("talk.jsonl", '{"text": "a"}\n[]\n', "line 2: list, expected an object"),
        ("talk.xlsx", "", r"give a \.csv or \.tsv file, or JSON lines"),
    ],
)
def test_a_file_that_is_no_table_is_named(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        list(read_table(written(tmp_path, text, name)))


def test_bytes_that_are_no_text_and_missing_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "talk.csv"
    with pytest.raises(DataError, match=r"talk\.csv"):
        list(read_table(path))
    path.write_bytes(b"text\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"talk\.csv, line 2: byte 0xff is not UTF-8: .* iconv"):
        list(read_table(path))
