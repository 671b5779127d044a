"""Rows of a CSV become utterances, and rows of a feature file go with them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.data.feature_file import FeatureRows, read_feature_rows
from model.data.writer import write_data_set
from stream.client.data_source import DataChoice
from stream.client.sources import open_sources
from stream.client.table_source import attached, csv_utterances, require_sendable
from stream.errors import ConfigError, SourceError
from stream.events.decode import vectors_of
from stream.events.messages import FeatureVector, PackedTensor, Utterance, encode, flags_of
from tests.fakes.conversations import generated_conversations

NAN = float("nan")


def rows(**arrays: Any) -> FeatureRows:
    vectors: Mapping[str, Any] = {m: np.asarray(v, np.float32) for m, v in arrays.items()}
    return FeatureRows("a.npz", vectors, {"audio": "praat"})


def lines(count: int) -> list[Utterance]:
    return [Utterance("c", f"u{i}", "s", text="hi") for i in range(count)]


def numbers(vector: FeatureVector) -> list[float]:
    assert isinstance(vector.tensor, PackedTensor)
    dtype = {"float16": "<f2", "float32": "<f4"}[vector.tensor.dtype]
    values: list[float] = np.frombuffer(vector.tensor.data, dtype).astype(float).tolist()
    return values


def test_a_byte_order_mark_before_quoted_column_names_is_no_part_of_the_first(
    tmp_path: Path,
) -> None:
    """adaltas/node-csv-parse#236: the first column was called by another name."""
    file = tmp_path / "calls.csv"
    named = '"conversation_id","utterance_id","speaker_id","text"\n"c","u","s","hi"\n'
    file.write_text(named, encoding="utf-8-sig")
    (utterance,) = open_sources([str(file)], DataChoice()).utterances
    assert utterance == Utterance("c", "u", "s", text="hi")


def test_each_utterance_gets_its_row_exactly_with_its_recipe() -> None:
    features = rows(audio=[[0.5, 300.1], [1, 2]], video=[[3], [4]])
    first, second = attached(lines(2), features, "talk.jsonl")
    assert numbers(vectors_of(first)["audio"]) == np.array([0.5, 300.1], np.float32).tolist()
    assert numbers(vectors_of(second)["video"]) == [4]
    assert vectors_of(first)["audio"].extractor == "praat"
    assert vectors_of(first)["video"].extractor is None
    assert first.text == "hi"


def test_an_absent_row_attaches_nothing() -> None:
    features = rows(audio=[[NAN, NAN], [1, 2]], persona=[[NAN] * 5, [1] * 5])
    require_sendable(features, 2, "x")
    first, second = attached(lines(2), features, "x")
    assert (first.features, first.persona) == (None, None)
    assert second.persona == [1] * 5


def test_vectors_already_carried_stay_and_duplicates_are_refused() -> None:
    carried = Utterance("c", "u", "s")
    for utterance in attached([carried], rows(audio=[[1, 2]]), "x"):
        (again,) = attached([utterance], rows(text=[[5]]), "x")
        assert set(vectors_of(again)) == {"text", "audio"}
        with pytest.raises(
            SourceError, match="utterance 1 of x carries `audio`, and so does row 0"
        ):
            list(attached([utterance], rows(audio=[[1, 2]]), "x"))


@pytest.mark.parametrize("count", [1, 3])
def test_rows_and_utterances_must_end_together(count: int) -> None:
    with pytest.raises(SourceError, match=rf"a\.npz has 2 rows, x has {count}"):
        list(attached(lines(count), rows(audio=[[1], [2]]), "x"))
    with pytest.raises(SourceError, match=rf"a\.npz has 2 rows, x has {count}"):
        require_sendable(rows(audio=[[1], [2]]), count, "x")


def test_a_hole_is_named_with_its_cure() -> None:
    with pytest.raises(SourceError, match=r"`audio` row 1, column 2 is NaN.*--fill-from shipped"):
        require_sendable(rows(audio=[[1, 2, 3], [1, 2, NAN]]), 2, "x")


def test_a_persona_of_another_size_is_refused() -> None:
    with pytest.raises(SourceError, match="`persona` has 4 numbers, a persona 5"):
        require_sendable(rows(persona=[[1] * 4]), 1, "x")


def test_a_file_that_does_not_fit_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "talk.jsonl").write_bytes(b"".join(encode(u) + b"\n" for u in lines(3)))
    with pytest.raises(SourceError, match=r"has 2 rows, talk\.jsonl has 3 utterances"):
        open_sources([str(tmp_path / "talk.jsonl")], DataChoice(), features=rows(audio=[[1], [2]]))


def test_vectors_go_with_lines_of_a_file_of_a_table_and_of_standard_input(tmp_path: Path) -> None:
    content = b"".join(encode(u) + b"\n" for u in lines(2))
    (tmp_path / "talk.jsonl").write_bytes(content)
    (tmp_path / "talk.csv").write_text("conversation_id,speaker_id,text\nc,s,hi\nc,s,hi\n", "utf-8")
    np.savez(tmp_path / "a.npz", audio=np.ones((2, 8)))
    features = read_feature_rows([tmp_path / "a.npz"])
    for source, stdin in (("talk.jsonl", None), ("talk.csv", None), ("-", io.BytesIO(content))):
        place = source if stdin else str(tmp_path / source)
        sent = list(open_sources([place], DataChoice(), stdin, features).utterances)
        assert [numbers(vectors_of(u)["audio"]) for u in sent] == [[1] * 8] * 2


def test_a_limit_of_conversations_leaves_rows_where_they_belong(tmp_path: Path) -> None:
    talk = [Utterance(f"c{i % 2}", f"u{i}", "s", text="hi") for i in range(4)]
    content = b"".join(encode(u) + b"\n" for u in talk)
    choice = DataChoice(limit_conversations=1)
    sent = open_sources(["-"], choice, io.BytesIO(content), rows(audio=[[0], [1], [2], [3]]))
    assert [numbers(vectors_of(u)["audio"]) for u in sent.utterances] == [[0], [2]]


def test_a_data_set_takes_no_vectors_of_others(tmp_path: Path) -> None:
    write_data_set(tmp_path, generated_conversations(8))
    with pytest.raises(ConfigError, match="leave out --features"):
        open_sources([str(tmp_path)], DataChoice(), features=rows(audio=[[1]]))


def csv_file(folder: Path, text: str) -> Path:
    (folder / "talk.csv").write_text(text, "utf-8")
    return folder / "talk.csv"


def test_a_csv_row_is_an_utterance_and_its_emotion_is_not_sent(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path,
        "dialogue_id,speaker,utterance,emotion,start_ms,role\n7,ann,hi,joy,1500,agent\n"
        '8,bob,"oh, no",fear,,\n7,ann,bye,,,\n',
    )
    assert [utterance for _place, utterance in csv_utterances(path)] == [
        Utterance("7", "0", "ann", text="hi", start_ms=1500, speaker_role="agent"),
        Utterance("8", "0", "bob", text="oh, no"),
        Utterance("7", "1", "ann", text="bye"),
    ]


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """python/cpython#61739, mholt/PapaParse#129: the last one wins, the others are lost."""
    path = tmp_path / "talk.csv"
    path.write_text("conversation_id,speaker_id,text,text\nc,a,so happy,so sad\n")
    with pytest.raises(SourceError, match=r"talk\.csv: the header has 'text' more than once"):
        open_sources([str(path)], DataChoice())
    path.write_text("conversation_id,speaker_id,text,text of before\nc,a,so happy,so sad\n")
    (met,) = open_sources([str(path)], DataChoice()).utterances
    assert met.text == "so happy"
    path.write_text("conversation_id,speaker_id,text,x,x\nc,a,so happy,1,2\n")  # not read
    assert len(list(open_sources([str(path)], DataChoice()).utterances)) == 1


@pytest.mark.parametrize("id", ["1.23457E+17", "1,29403E+18"])
def test_ids_that_a_spreadsheet_rounded_are_refused(tmp_path: Path, id: str) -> None:
    """pulibrary/orangelight#2695, dbcli/mycli#1094: different ids become one."""
    path = tmp_path / "talk.csv"
    path.write_text(
        f"conversation_id,speaker_id,text\nc,a,hello\n{id!r},a,hello\n".replace("'", '"')
    )
    with pytest.raises(SourceError, match=r"line 3: conversation_id .* as a spreadsheet rounds it"):
        open_sources([str(path)], DataChoice())


def test_a_long_text_is_read(tmp_path: Path) -> None:
    """wireservice/csvkit#812: "field larger than field limit (131072)"."""
    path = tmp_path / "talk.csv"
    long = "word " * 40_000
    path.write_text(f"conversation_id,speaker_id,text\nc,a,{long}\n")
    (met,) = open_sources([str(path)], DataChoice()).utterances
    assert met.text == long.strip()


def test_a_number_that_no_answer_needs_costs_no_row(tmp_path: Path) -> None:
    """pandas writes whole numbers as 3.0 where a column has an empty cell."""
    text = "conversation_id,speaker_id,text,seq,end_ms\nc,s,hi,3.0,0.5\nc,s,hi,one,nan\n"
    first, second = (utterance for _, utterance in csv_utterances(csv_file(tmp_path, text)))
    assert (first.seq, flags_of(first)) == (3, ("ignored_end_ms",))
    assert (second.seq, flags_of(second)) == (None, ("ignored_seq", "ignored_end_ms"))


def test_columns_of_names_of_ones_own_get_a_cure_too(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as met:
        list(csv_utterances(csv_file(tmp_path, "ticket,who,text\nc,ann,hi\n")))
    assert "name a column conversation_id and one speaker_id" in str(met.value)


def test_columns_with_other_names_are_named_with_the_nearest(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "conversationId;speakerId;text;lang\nc;ann;hi;en\n")
    with pytest.raises(SourceError) as met:
        list(csv_utterances(path))
    assert "no conversation_id and no speaker_id in this row" in str(met.value)
    assert "rename 'conversationId' to conversation_id, 'speakerId' to speaker_id" in str(met.value)
    assert "the columns 'conversationId', 'speakerId', 'text', 'lang'" in str(met.value)
    text = path.read_text("utf-8").replace("conversationId", "conversation_id")
    path.write_text(text.replace("speakerId", "speaker_id"), "utf-8")  # the cure
    assert len(list(csv_utterances(path))) == 1


def test_a_table_in_utf_16_says_how_to_convert_it(tmp_path: Path) -> None:
    path = tmp_path / "talk.csv"
    path.write_text("conversation_id,speaker_id,text\nc,ann,hi\n", "utf-16")
    with pytest.raises(SourceError, match=r"iconv -f UTF-16 -t UTF-8 .*talk\.csv > "):
        list(csv_utterances(path))
    path.write_text(path.read_text("utf-16"), "utf-8")  # the cure
    assert len(list(csv_utterances(path))) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conversation_id,text\nc,hi\n", "line 2: .*speaker_id"),
        ("conversation_id,speaker_id,text\nc,s,hi,there\n", "line 2: 4 cells, the header has 3"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        list(csv_utterances(csv_file(tmp_path, text)))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", "-"])
def test_published_sounds_go_to_the_utterances_of_their_names(tmp_path: Path, suffix: str) -> None:
    audio = np.arange(12, dtype=np.float32)[:, None]
    names = sorted(map(str, range(12)))
    np.savez(tmp_path / "a.npz", audio=audio, name=np.array(names))
    told = [f'{{"conversation_id":"c","utterance_id":"{i}","speaker_id":"s"}}\n' for i in range(12)]
    source = tmp_path / f"calls{suffix}"
    table = "call_id,uid,speaker\n" + "".join(f"c,{i},s\n" for i in range(12))
    source.write_text(table if suffix == ".csv" else "".join(told))
    opened = open_sources(
        ["-" if suffix == "-" else str(source)],
        DataChoice(),
        io.BytesIO(source.read_bytes()),
        read_feature_rows([tmp_path / "a.npz"]),
    )
    sent = {u.utterance_id: numbers(vectors_of(u)["audio"]) for u in opened.utterances}
    assert {id: names[int(value)] for id, (value,) in sent.items()} == {n: n for n in names}
    assert opened.warnings == ()


def test_a_clip_column_finds_the_sounds_and_doubtful_names_are_said(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", audio=np.array([[1.0], [2.0]]), name=np.array(["y", "x"]))
    features = read_feature_rows([tmp_path / "a.npz"])
    clips, others = tmp_path / "clips.csv", tmp_path / "others.csv"
    clips.write_text("call_id,uid,speaker,clip,text\nc,1,s,wav/x.wav,hi\nc,2,s,wav/y.wav,ho\n")
    others.write_text("call_id,uid,speaker,text\nc,1,s,hi\nc,2,s,ho\n")
    opened = open_sources([str(clips)], DataChoice(), features=features)
    assert [numbers(vectors_of(u)["audio"]) for u in opened.utterances] == [[2], [1]]
    assert opened.warnings == ()
    (warning,) = open_sources([str(others)], DataChoice(), features=features).warnings
    assert "row i is taken for the i-th utterance" in warning
    np.savez(tmp_path / "b.npz", audio=np.array([[1.0], [2.0]]), name=np.array(["1", "x"]))
    with pytest.raises(SourceError, match="1 of its 2 names are those of an utterance"):
        open_sources([str(clips)], DataChoice(), features=read_feature_rows([tmp_path / "b.npz"]))
