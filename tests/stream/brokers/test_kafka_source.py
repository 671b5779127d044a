"""The Kafka adapter: its settings as plain values, and what a real broker makes of them."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
from confluent_kafka import KafkaError, KafkaException
from kafka.partitioner.default import murmur2

from stream.brokers.kafka_config import (
    NO_TOPIC_ID,
    consumer_config,
    find_topic_id,
    producer_config,
    retry,
)
from stream.brokers.kafka_sink import KafkaSink
from stream.brokers.kafka_source import KafkaSource
from stream.brokers.kafka_watch import KafkaWatch
from stream.brokers.topics import create, plan
from stream.errors import BrokerUnreachable, TopicMissing
from stream.events.messages import TopicNames
from stream.local.servers import RunningKafka, free_ports
from stream.ports import CommitRefused, DeliveryFailed, Outgoing, Record, Seen, Start
from stream.settings import Settings
from tests.integration.workers import wait_for

POLL_S = 0.2
TURNS = 150  # of POLL_S: half a minute


class Recorder:
    """Records the assignments that the source reports."""

    def __init__(self) -> None:
        self.starts: dict[int, Start] = {}
        self.gone: list[int] = []

    def assigned(self, starts: Mapping[int, Start]) -> None:
        self.starts.update(starts)

    def revoked(self, partitions: Sequence[int]) -> None:
        self.gone += partitions

    def lost(self, partitions: Sequence[int]) -> None:
        self.gone += partitions


def test_offsets_are_never_committed_behind_our_back() -> None:
    config = consumer_config(Settings())
    assert config["enable.auto.commit"] is False
    assert config["enable.auto.offset.store"] is False
    assert config["auto.offset.reset"] == "earliest"


def test_the_group_protocol_is_the_new_one_unless_set_or_on_the_mock() -> None:
    assert consumer_config(Settings())["group.protocol"] == "consumer"
    for settings in (Settings(group_protocol="classic"), Settings(mock_broker=True)):
        config = consumer_config(settings)
        assert config["group.protocol"] == "classic"
        assert config["partition.assignment.strategy"] == "cooperative-sticky"
    assert "session.timeout.ms" not in consumer_config(Settings())


def test_outputs_are_idempotent_and_partitioned_as_other_clients_do() -> None:
    config = producer_config(Settings())
    assert config["enable.idempotence"] is True
    assert config["linger.ms"] == 0
    assert config["partitioner"] == "murmur2_random"


def test_a_users_options_win() -> None:
    settings = Settings(kafka_options={"client.id": "mine", "linger.ms": "5"})
    assert consumer_config(settings)["client.id"] == "mine"
    assert producer_config(settings)["linger.ms"] == "5"


@pytest.mark.slow
def test_an_unreachable_broker_is_named() -> None:
    (port,) = free_ports(1)
    settings = Settings(bootstrap=f"127.0.0.1:{port}", mock_broker=True)
    with pytest.raises(BrokerUnreachable, match=f"127.0.0.1:{port}"):
        find_topic_id(settings)


@pytest.fixture
def settings(kafka: RunningKafka) -> Settings:
    prefix = f"io{uuid.uuid4().hex[:8]}."
    create(kafka.bootstrap, plan(TopicNames(prefix), partitions=4))
    return Settings(bootstrap=kafka.bootstrap, topic_prefix=prefix, group=f"{prefix}g")


Joined = tuple[KafkaSource, Recorder]


@pytest.fixture
def join(settings: Settings) -> Iterator[Callable[[], Joined]]:
    """Join the group; every member leaves at the end."""
    sources: list[KafkaSource] = []

    def member() -> Joined:
        source, recorder = KafkaSource(settings, find_topic_id(settings)), Recorder()
        sources.append(source)
        source.subscribe(recorder)
        return source, recorder

    yield member
    for source in sources:
        source.close()


def read(source: KafkaSource, until: Callable[[list[Record]], bool]) -> list[Record]:
    records: list[Record] = []
    for _ in range(TURNS):
        records += source.poll(100, POLL_S)
        if until(records):
            return records
    raise AssertionError(f"only {len(records)} records came")


def write(settings: Settings, records: Sequence[Outgoing]) -> None:
    sink = KafkaSink(settings)
    sink.produce(records)
    assert sink.flush(20)
    sink.close()


@pytest.mark.integration
def test_a_record_is_read_back_unchanged(settings: Settings, join: Callable[[], Joined]) -> None:
    headers = (("ce_id", b"1"), ("raw", b"\xff\x00"), ("none", None))
    topic = settings.topics.utterances
    written = [Outgoing(topic, b"k", b"v", headers), Outgoing(topic, b"k", None)]
    write(settings, written)
    source, recorder = join()
    first, second = read(source, lambda records: len(records) == 2)
    assert (first.key, first.value, first.headers) == (b"k", b"v", headers)
    assert (second.value, second.headers) == (None, ())
    assert (first.offset, second.offset) == (0, 1)
    assert second.timestamp_ms >= first.timestamp_ms > 1_600_000_000_000
    assert all(start.beginning for start in recorder.starts.values())
    assert source.topic_id != NO_TOPIC_ID


@pytest.mark.integration
def test_our_partitioner_is_the_one_of_other_clients(
    settings: Settings, join: Callable[[], Joined]
) -> None:
    keys = [f"conversation {i} ü".encode() for i in range(40)]
    write(settings, [Outgoing(settings.topics.utterances, key, b"v") for key in keys])
    source, _ = join()
    records = read(source, lambda records: len(records) == len(keys))
    expected = {key: (murmur2(key) & 0x7FFFFFFF) % 4 for key in keys}
    assert {r.key: r.partition for r in records} == expected


@pytest.mark.integration
def test_a_commit_is_where_the_next_member_starts(
    settings: Settings, join: Callable[[], Joined]
) -> None:
    write(settings, [Outgoing(settings.topics.utterances, b"k", b"%d" % i) for i in range(5)])
    source, _ = join()
    records = read(source, lambda records: len(records) == 5)
    partition = records[0].partition
    source.commit({partition: 3}, {partition: "a note"})
    stranger = KafkaSource(settings, source.topic_id)  # never joined, as a zombie
    with pytest.raises(CommitRefused):
        stranger.commit({partition: 5}, {partition: ""})
    stranger.close()
    source.close()
    again, recorder = join()
    rest = read(again, lambda records: len(records) == 2)
    assert [r.offset for r in rest] == [3, 4]
    assert recorder.starts[partition] == Start(3, 0, "a note")
    assert not recorder.starts[partition].beginning
    again.seek(partition, 1)
    assert [r.offset for r in read(again, lambda records: len(records) == 4)] == [1, 2, 3, 4]


@pytest.mark.integration
def test_a_paused_partition_gives_nothing_until_resumed(
    settings: Settings, join: Callable[[], Joined]
) -> None:
    source, recorder = join()
    read(source, lambda _: len(recorder.starts) == 4)
    source.pause(list(recorder.starts))
    write(settings, [Outgoing(settings.topics.utterances, b"k", b"v")])
    assert all(not source.poll(10, 0.05) for _ in range(10))
    assert (
        sum(source.lag().values()) == 1
    )  # requested: no fetch reports the end of a paused partition
    source.resume(list(recorder.starts))
    (record,) = read(source, lambda records: len(records) == 1)
    source.poll(1, 0.0)
    assert source.lag()[record.partition] == 0
    assert source.reachable()


@pytest.mark.integration
def test_the_lag_of_a_paused_partition_grows_where_a_quick_request_is_not_answered(
    settings: Settings, join: Callable[[], Joined], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine it stayed at 2 for five minutes, until the partition was resumed at 191."""

    def unanswered(*_: object) -> Mapping[int, int]:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    monkeypatch.setattr("stream.brokers.kafka_watch.OFFSETS_S", 0.0)
    source, recorder = join()
    read(source, lambda _: len(recorder.starts) == 4)
    monkeypatch.setattr(source._lookup, "ends", unanswered)
    source.watch(lambda _: None)
    source.pause(list(recorder.starts))
    write(settings, [Outgoing(settings.topics.utterances, b"k", b"v")] * 3)
    wait_for(lambda: sum(source.lag().values()) == 3, "what the watch has seen")


@pytest.mark.integration
def test_after_a_seek_the_lag_counts_from_there(
    settings: Settings, join: Callable[[], Joined]
) -> None:
    """It counted from the assignment until the next record came: 574 where 63 waited."""
    write(settings, [Outgoing(settings.topics.utterances, b"k", b"%d" % i) for i in range(12)])
    source, recorder = join()
    (partition,) = {r.partition for r in read(source, lambda records: len(records) == 12)}
    for offset in (9, 4):
        source.seek(partition, offset)
        source.pause([partition])
        for _ in range(5):
            assert not source.poll(10, 0.05)
            assert source.lag()[partition] == 12 - offset
        source.resume([partition])
        read(source, lambda records: bool(records) and records[-1].offset == 11)
        assert source.lag()[partition] == 0
    assert sum(source.lag().values()) == 0 and len(recorder.starts) == 4


@pytest.mark.integration
def test_a_look_shows_what_waits_on_partitions_that_nobody_owns(
    settings: Settings, join: Callable[[], Joined]
) -> None:
    keys = [f"k{n}".encode() for n in range(40)]
    write(settings, [Outgoing(settings.topics.utterances, key, b"v") for key in keys])
    looks: list[Seen] = []
    watch = KafkaWatch(settings)
    watch.start(looks.append)
    wait_for(lambda: bool(looks), "a look at a group that has committed nothing")
    assert looks[0] == Seen("", 4, 40)
    watch.close()
    source, _ = join()
    records = read(source, lambda records: len(records) == len(keys))
    done = Counter(r.partition for r in records)
    source.commit({p: count - 1 for p, count in done.items()}, dict.fromkeys(done, ""))
    source.close()  # nobody owns a partition
    looks.clear()
    again = KafkaWatch(settings)
    again.start(looks.append)
    wait_for(lambda: bool(looks), "a look")
    again.close()
    assert looks[0] == Seen("", 4, len(done))


@pytest.mark.integration
def test_a_refused_output_is_reported_and_the_next_is_delivered(settings: Settings) -> None:
    sink = KafkaSink(settings)
    too_large = b"x" * ((1 << 20) + 100_000)  # more than the topic takes, less than the producer
    sink.produce([Outgoing(settings.topics.predictions, b"k", too_large)])
    with pytest.raises(DeliveryFailed, match="not delivered"):
        sink.flush(20)
    sink.produce([Outgoing(settings.topics.predictions, b"k", b"small")])
    assert sink.flush(20)
    sink.close()


@pytest.mark.integration
def test_a_recreated_topic_has_another_id_and_a_missing_one_is_named(settings: Settings) -> None:
    assert find_topic_id(settings) == find_topic_id(settings) != NO_TOPIC_ID
    with pytest.raises(TopicMissing, match="emotrack topics create"):
        find_topic_id(settings.model_copy(update={"topic_prefix": "nowhere."}))


def test_a_call_is_retried_while_the_broker_refuses() -> None:
    """A group's first member met NOT_COORDINATOR while the offsets topic was being made."""
    refusals = [KafkaException(KafkaError(KafkaError.NOT_COORDINATOR))] * 2

    def ask() -> int:
        if refusals:
            raise refusals.pop()
        return 7

    assert retry(ask, "fault") == 7
