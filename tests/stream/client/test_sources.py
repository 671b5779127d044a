"""The utterances of a source are published in order, no faster than the rate."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.data.dataset import DataSet
from model.data.reader import read_data_set
from model.data.writer import write_data_set
from model.interface import MODALITIES
from stream.client.data_source import DataChoice, conversation_of, from_data_set, side_by_side
from stream.client.sources import open_sources, publish_all, read_lines
from stream.client.table_source import pack_exactly
from stream.errors import ConfigError, EmotrackError, InvalidUtterance, SourceError
from stream.events.decode import Decoder, check, tensors, vectors_of
from stream.events.messages import Utterance, encode
from stream.ports import Record
from tests.fakes.conversations import generated_conversations

DATA = generated_conversations(12, seed=3)
LINE = b'{"conversation_id": "c", "utterance_id": "u", "speaker_id": "s", "text": "hi"}\n'
NUMPY = {"float16": "<f2", "float32": "<f4"}


@dataclass
class HandClock:
    """A clock that only sleep and work move."""

    now: float = 100.0
    slept: list[float] = field(default_factory=list)

    def read(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@dataclass
class Log:
    """Takes utterances as a `Publisher` does."""

    clock: HandClock = field(default_factory=HandClock)
    work_s: float = 0.0
    at: list[float] = field(default_factory=list)
    published: list[Utterance] = field(default_factory=list)
    flushed: int = 0

    def publish(self, utterance: Utterance) -> None:
        if not utterance.speaker_id:
            raise InvalidUtterance("empty_id", "field `speaker_id` is empty")
        self.at.append(self.clock.now)
        self.published.append(utterance)
        self.clock.now += self.work_s

    def flush(self) -> None:
        self.flushed = len(self.published)


def many(count: int) -> list[Utterance]:
    return [Utterance(f"c{i % 3}", f"u{i}", "s", text="hi") for i in range(count)]


def test_at_a_rate_the_nth_utterance_goes_out_n_over_rate_after_the_start() -> None:
    log = Log()
    publish_all(log, many(5), rate=10.0, clock=log.clock.read, sleep=log.clock.sleep)
    assert log.at == pytest.approx([100.0, 100.1, 100.2, 100.3, 100.4])


def test_a_slow_broker_does_not_slow_the_schedule_down() -> None:
    log = Log(work_s=0.25)
    publish_all(log, many(4), rate=10.0, clock=log.clock.read, sleep=log.clock.sleep)
    assert log.at == pytest.approx([100.0, 100.25, 100.5, 100.75])
    assert log.clock.slept == []


def test_everything_is_flushed_and_summed_up() -> None:
    log, counts = Log(work_s=0.5), list[int]()
    done = publish_all(log, many(4), sent=counts.append, clock=log.clock.read)
    assert (done.utterances, done.conversations, done.seconds) == (4, 3, 2.0)
    assert done.per_second == 2.0
    assert counts == [1, 2, 3, 4]
    assert log.flushed == 4


def test_an_invalid_utterance_is_named_by_its_place() -> None:
    bad = Utterance("c", "u9", "", text="hi")
    with pytest.raises(InvalidUtterance, match=r"utterance 3 \('u9'\).*speaker_id") as met:
        publish_all(Log(), [*many(2), bad])
    assert met.value.code == "empty_id"


def test_lines_are_events_and_blank_lines_are_nothing() -> None:
    said = Utterance("c", "u", "s", text="hi")
    assert list(read_lines([LINE, b"\n", LINE], "x")) == [("x, line 1", said), ("x, line 3", said)]


@pytest.mark.parametrize("bad", [b"{", b'{"text": "hi"}', b"[]", b"x" * (1 << 21)])
def test_a_bad_line_is_named_and_those_before_it_are_read(bad: bytes) -> None:
    lines = read_lines([LINE, bad], "talk.jsonl")
    next(lines)
    with pytest.raises(SourceError, match=r"talk\.jsonl, line 2"):
        next(lines)


def test_standard_input_is_a_dash_and_a_limit_counts_conversations() -> None:
    lines = b"".join(encode(u) + b"\n" for u in many(9))
    source = open_sources(["-"], DataChoice(limit_conversations=2), io.BytesIO(lines))
    assert source.total is None
    assert [u.conversation_id for u in source.utterances] == ["c0", "c1"] * 3


def test_a_missing_file_says_what_a_source_can_be(tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match=r"JSON lines, - for standard input, a \.csv, or a data-set"
    ):
        list(open_sources([str(tmp_path / "none.jsonl")], DataChoice()).utterances)


def test_a_folder_without_a_data_set_says_so(tmp_path: Path) -> None:
    with pytest.raises(EmotrackError, match=r"folder without a data set .*data convert"):
        open_sources([str(tmp_path)], DataChoice())


def test_an_unknown_feature_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown feature smell"):
        DataChoice(modalities=frozenset({"text", "smell"}))


@given(st.lists(st.integers(1, 6), max_size=12), st.integers(1, 5))
def test_side_by_side_keeps_each_conversation_in_order(lengths: list[int], at_once: int) -> None:
    talks = [
        [Utterance(f"c{n}", f"{i}", "s") for i in range(length)] for n, length in enumerate(lengths)
    ]
    sent = list(side_by_side(talks, at_once))
    for n, talk in enumerate(talks):
        assert [u for u in sent if u.conversation_id == f"c{n}"] == talk
    live: set[str] = set()
    for utterance in sent:
        live.add(utterance.conversation_id)
        assert len(live) <= at_once
        if utterance == talks[int(utterance.conversation_id[1:])][-1]:
            live.remove(utterance.conversation_id)


def assert_equal_to_the_arrays(data: DataSet, choice: DataChoice) -> None:
    widths = data.widths
    for dialogue in data.split(choice.split):
        talk = conversation_of(data, dialogue, choice)
        assert [u.seq for u in talk] == list(range(len(dialogue)))
        assert [u.end_of_conversation for u in talk] == [False] * (len(talk) - 1) + [True]
        for i, utterance in enumerate(talk):
            check(utterance, widths)
            found = tensors(utterance, widths)
            for column, modality in enumerate(MODALITIES):
                assert (modality in found) == bool(dialogue.present[i, column])
                if modality in found:
                    tensor = found[modality]
                    values = np.frombuffer(tensor.data, NUMPY[tensor.dtype])
                    assert (values.astype("f4") == dialogue.features[modality][i]).all()
            if dialogue.present[i, 3]:
                persona = np.array(utterance.persona, np.float32)
                assert (persona == dialogue.features["persona"][i]).all()


def test_vectors_are_exactly_those_of_the_data_set() -> None:
    assert_equal_to_the_arrays(DATA, DataChoice("train"))


def test_vectors_are_exactly_those_of_the_folder(data_folder: Path | None, tmp_path: Path) -> None:
    if data_folder is None:
        write_data_set(tmp_path, DATA)
    data = read_data_set(data_folder or tmp_path)
    assert_equal_to_the_arrays(data, DataChoice("test"))
    total = sum(len(dialogue) for dialogue in data.split("test"))
    source = open_sources([str(data_folder or tmp_path)], DataChoice("test"))
    sent = list(source.utterances)
    assert len(sent) == source.total == total
    assert len({(u.conversation_id, u.utterance_id) for u in sent}) == total


def test_the_worker_decodes_what_is_sent_unchanged() -> None:
    for utterance in from_data_set(DATA, DataChoice("train")).utterances:
        key = utterance.conversation_id.encode()
        headers = (("content-type", b"application/msgpack"),)
        record = Record("t", 0, 0, 0, key, encode(utterance, "msgpack"), headers)
        assert Decoder(DATA.widths).decode(record).message == utterance


def test_raw_text_goes_instead_of_its_vector() -> None:
    source = from_data_set(DATA, DataChoice("train", raw_text=True))
    for utterance in source.utterances:
        assert utterance.text
        assert "text" not in vectors_of(utterance)


def test_only_chosen_features_go_out() -> None:
    source = from_data_set(DATA, DataChoice("train", modalities=frozenset({"text"})))
    for utterance in source.utterances:
        assert set(vectors_of(utterance)) == {"text"}
        assert utterance.persona is None
        assert utterance.text is None


def test_numbers_are_halved_only_where_nothing_is_lost() -> None:
    assert pack_exactly(np.array([0.5, -2.0], np.float32)).dtype == "float16"
    assert pack_exactly(np.array([300.1, 0.5], np.float32)).dtype == "float32"
    assert pack_exactly(np.array([70_000.0], np.float32)).dtype == "float32"
