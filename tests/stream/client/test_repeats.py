"""Ids that are repeated are counted before anything is sent, and told apart by what they hold."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest

from stream.client.data_source import DataChoice
from stream.client.repeats import Repeats
from stream.client.sources import open_sources
from stream.errors import InvalidUtterance
from stream.events.messages import Utterance

TABLE = "conversation_id,speaker_id,text\n1,ann,{}\n1,bob,no\n"


def count(*utterances: Utterance) -> Repeats:
    repeats = Repeats()
    placed = [(f"line {n}", utterance) for n, utterance in enumerate(utterances, start=1)]
    assert list(repeats.counted(placed)) == placed
    return repeats


def test_an_equal_repeat_is_warned_of_and_another_utterance_is_refused() -> None:
    first = Utterance("c", "u", "ann", text="hi")
    equal = count(first, Utterance("c", "u", "ann", text="hi", seq=7))
    assert (equal.equal, equal.other) == (1, 0), "no answer depends on seq"
    equal.refuse()
    assert "first: line 2: 'u' of 'c'" in (equal.sentence or "")
    for other in (Utterance("c", "u", "bob", text="hi"), Utterance("c", "u", "ann", text="no")):
        with pytest.raises(InvalidUtterance, match=r"1 of 3 .* line 3") as met:
            count(first, first, other).refuse()
        assert met.value.code == "repeated_id"
        assert "no" not in str(met.value).split("'")[1::2], "no word of a conversation"


def test_the_same_id_in_another_conversation_is_no_repeat() -> None:
    repeats = count(
        Utterance("c", "u", "ann"), Utterance("d", "u", "ann"), Utterance("cu", "", "a")
    )
    assert repeats.sentence is None
    repeats.refuse()


def test_tables_whose_ids_begin_anew_collide_unless_they_have_a_prefix(tmp_path: Path) -> None:
    """A test split after a dev split: its utterances were appended to dev's conversations."""
    dev, test = tmp_path / "dev.csv", tmp_path / "test.csv"
    dev.write_text(TABLE.format("hi"), "utf-8")
    test.write_text(TABLE.format("hello"), "utf-8")
    both = open_sources([str(dev), str(test)], DataChoice()).repeats
    assert (both.utterances, both.equal, both.other) == (4, 1, 1)
    assert "test.csv, line 2" in both.first
    apart = open_sources([str(test)], DataChoice(), id_prefix="test-")
    assert [u.conversation_id for u in apart.utterances] == ["test-1", "test-1"]


def test_what_a_limit_leaves_out_is_no_repeat(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    line = {"utterance_id": "u", "speaker_id": "s", "text": "hi"}
    names = ("a", "b", "b")
    path.write_text("".join(json.dumps(line | {"conversation_id": c}) + "\n" for c in names))
    assert open_sources([str(path)], DataChoice(limit_conversations=1)).repeats.utterances == 1
    assert open_sources([str(path)], DataChoice()).repeats.equal == 1


def test_a_pipe_is_read_once_and_counted_while_it_is_published(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    line = b'{"conversation_id": "c", "utterance_id": "u", "speaker_id": "s", "text": "hi"}\n'
    writer = threading.Thread(target=pipe.write_bytes, args=(line * 2,))
    writer.start()
    opened = open_sources([str(pipe)], DataChoice())
    assert opened.repeats.utterances == 0
    assert len(list(opened.utterances)) == 2
    assert opened.repeats.equal == 1
    writer.join(10)
