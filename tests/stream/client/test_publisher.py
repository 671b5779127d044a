"""The light client on Apache Kafka, and on the mock cluster of the demo."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import confluent_kafka
import kafka as kafka_python
import pytest

from stream.brokers.kafka_admin import API_VERSION, broker_addresses, require_broker, require_topic
from stream.brokers.topics import create, plan
from stream.client import AlertSubscriber, PredictionSubscriber, Publisher
from stream.errors import (
    BrokerUnreachable,
    InvalidUtterance,
    NotDelivered,
    TopicMissing,
    TopicUnfit,
)
from stream.events.cloudevents import (
    ALERT_TYPE,
    PREDICTION_TYPE,
    Encoding,
    HeaderList,
    event_headers,
)
from stream.events.decode import Decoder
from stream.events.messages import (
    Context,
    InputRef,
    ModelRef,
    PredictionEvent,
    Shift,
    ShiftAlert,
    TopicNames,
    Utterance,
    encode,
)
from stream.local.servers import RunningKafka, free_ports
from stream.ports import Record

PREFIXES = itertools.count()
MODEL = ModelRef("pcgnet", "1", "d" * 64, "none")
PREDICTION = PredictionEvent(
    conversation_id="c",
    utterance_id="u1",
    speaker_id="s",
    prediction_id="p1",
    emotion="joy",
    probabilities={"joy": 0.75, "calm": 0.25},
    confidence=0.75,
    sentiment="positive",
    shift=Shift(0.5, "calm", "joy", "u0"),
    modalities_used=["text"],
    context=Context(1, "u0", 0, False),
    model=MODEL,
    input=InputRef("emotrack.utterances", 0, 1),
)
ALERT = ShiftAlert(
    alert_id="a1",
    conversation_id="c",
    speaker_id="s",
    from_="calm",
    to="joy",
    probability=0.9,
    rule="emotion_shift",
    severity="warning",
    utterance_id="u1",
    previous_utterance_id="u0",
    prediction_id="p1",
    model=MODEL,
    input=InputRef("emotrack.utterances", 0, 1),
)


@pytest.fixture
def names(kafka: RunningKafka) -> TopicNames:
    """Four topics of this test alone."""
    own = TopicNames(f"client{next(PREFIXES)}.")
    create(kafka.bootstrap, plan(own, partitions=3))
    return own


@pytest.fixture(scope="module")
def mock_broker() -> Iterator[str]:
    """librdkafka's mock cluster with our topics."""
    owner = confluent_kafka.Producer({"test.mock.num.brokers": 1, "log_level": 0})
    metadata = owner.list_topics(timeout=10)
    (broker,) = metadata.brokers.values()
    for topic in ("utterances", "predictions", "shift-alerts"):
        owner.list_topics(f"emotrack.{topic}", timeout=10)
    yield f"{broker.host}:{broker.port}"
    del owner


def records(bootstrap: str, topic: str, count: int) -> list[Any]:
    """The first `count` records of a topic, by the worker's client."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": f"reader{next(PREFIXES)}",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([topic])
    found: list[Any] = []
    try:
        for _ in range(200):
            found += consumer.consume(count - len(found), timeout=0.1)
            if len(found) >= count:
                break
    finally:
        consumer.close()
    return found


def produce(bootstrap: str, topic: str, values: list[tuple[bytes, HeaderList]]) -> None:
    """Write events as the worker does."""
    producer = confluent_kafka.Producer({"bootstrap.servers": bootstrap})
    for value, headers in values:
        producer.produce(topic, value, key=b"c", headers=[*headers])
    assert producer.flush(10) == 0


def headers_of(kind: str, encoding: Encoding = "json", *more: tuple[str, bytes]) -> HeaderList:
    return event_headers(id="1", type=kind, source="urn:t", encoding=encoding, more=more)


@pytest.mark.integration
@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_the_worker_decodes_what_the_client_publishes(
    kafka: RunningKafka, names: TopicNames, encoding: Encoding
) -> None:
    said = [Utterance(f"c{i % 5}", f"u{i}", "s", text="hi") for i in range(50)]
    with Publisher(kafka.bootstrap, topic=names.utterances, encoding=encoding) as publisher:
        for utterance in said:
            publisher.publish(utterance, traceparent="00-ab-cd-01")
    assert (publisher.sent, publisher.acknowledged) == (50, 50)
    came = records(kafka.bootstrap, names.utterances, 50)
    read = [Record(r.topic(), 0, 0, 0, r.key(), r.value(), tuple(r.headers())) for r in came]
    decoded = [Decoder({}).decode(record).message for record in read]
    for conversation in {u.conversation_id for u in said}:
        sent = [u for u in said if u.conversation_id == conversation]
        got = [u for u in decoded if isinstance(u, Utterance) and u.conversation_id == conversation]
        assert got == sent
    assert {dict(r.headers())["traceparent"] for r in came} == {b"00-ab-cd-01"}
    ids = [dict(r.headers())["ce_id"] for r in came]
    assert len(set(ids)) == 50


@pytest.mark.integration
def test_a_conversation_lands_where_the_worker_s_producer_would_put_it(
    kafka: RunningKafka, names: TopicNames
) -> None:
    keys = [f"conversation {i}" for i in range(30)]
    with Publisher(kafka.bootstrap, topic=names.utterances) as publisher:
        for key in keys:
            publisher.publish(Utterance(key, "u", "s", text="hi"))
    ours = {r.key(): r.partition() for r in records(kafka.bootstrap, names.utterances, 30)}
    producer = confluent_kafka.Producer(
        {"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2_random"}
    )
    for key in keys:
        producer.produce(names.predictions, b"x", key=key.encode())
    assert producer.flush(10) == 0
    theirs = {r.key(): r.partition() for r in records(kafka.bootstrap, names.predictions, 30)}
    assert ours == theirs
    assert len(set(ours.values())) == 3


@pytest.mark.integration
@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_subscribers_yield_typed_events_with_their_headers(
    kafka: RunningKafka, names: TopicNames, encoding: Encoding
) -> None:
    timed = headers_of(PREDICTION_TYPE, encoding, ("emotrack_queue_ms", b"1.5"))
    produce(kafka.bootstrap, names.predictions, [(encode(PREDICTION, encoding), timed)])
    alert = (encode(ALERT, encoding), headers_of(ALERT_TYPE, encoding))
    produce(kafka.bootstrap, names.shift_alerts, [alert])
    with PredictionSubscriber(
        kafka.bootstrap, topic=names.predictions, from_beginning=True, timeout_s=120
    ) as predictions:
        received = next(predictions.records())
    assert received.event == PREDICTION
    assert dict(received.headers)["emotrack_queue_ms"] == b"1.5"
    with AlertSubscriber(
        kafka.bootstrap, topic=names.shift_alerts, from_beginning=True, timeout_s=120
    ) as alerts:
        assert next(iter(alerts)) == ALERT


@pytest.mark.integration
def test_records_that_are_no_such_event_are_skipped_and_counted(
    kafka: RunningKafka, names: TopicNames
) -> None:
    good = (encode(ALERT), headers_of(ALERT_TYPE))
    bad = [
        (b"{", headers_of(ALERT_TYPE)),
        (b"{}", headers_of(ALERT_TYPE)),
        (encode(PREDICTION), headers_of(PREDICTION_TYPE)),
        (encode(ALERT), [*headers_of(ALERT_TYPE), ("ce_source", b"\xff")]),
    ]
    produce(kafka.bootstrap, names.shift_alerts, [*bad, good])
    with AlertSubscriber(
        kafka.bootstrap, topic=names.shift_alerts, from_beginning=True, timeout_s=120
    ) as alerts:
        assert next(iter(alerts)) == ALERT
        assert alerts.skipped == len(bad)


class NoUtf8(str):
    """A header name as another client may write it."""

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return b"\xff\xfe"


@pytest.mark.integration
def test_a_record_kafka_python_cannot_read_is_said_and_not_hung_upon(
    kafka: RunningKafka, names: TopicNames
) -> None:
    producer: Any = kafka_python.KafkaProducer(
        bootstrap_servers=kafka.bootstrap, api_version=API_VERSION
    )
    producer.send(names.shift_alerts, b"{}", headers=[(NoUtf8("x"), b"1")]).get(10)
    producer.close()
    with (
        AlertSubscriber(
            kafka.bootstrap, topic=names.shift_alerts, from_beginning=True, timeout_s=120
        ) as alerts,
        pytest.raises(TopicUnfit, match="cannot be read any further"),
    ):
        next(iter(alerts))


@pytest.mark.integration
def test_without_a_group_nothing_written_after_subscribing_is_missed_and_nothing_before_seen(
    kafka: RunningKafka, names: TopicNames
) -> None:
    before = (encode(PREDICTION), headers_of(PREDICTION_TYPE))
    produce(kafka.bootstrap, names.predictions, [before])
    with PredictionSubscriber(kafka.bootstrap, topic=names.predictions, timeout_s=120) as watching:
        value = encode(PREDICTION).replace(b'"p1"', b'"p2"')
        produce(kafka.bootstrap, names.predictions, [(value, headers_of(PREDICTION_TYPE))])
        assert next(iter(watching)).prediction_id == "p2"


@pytest.mark.integration
def test_a_group_goes_on_where_it_stopped(kafka: RunningKafka, names: TopicNames) -> None:
    seen: list[str] = []
    for turn in ("first", "second"):
        value = encode(ALERT).replace(b'"a1"', f'"{turn}"'.encode())
        produce(kafka.bootstrap, names.shift_alerts, [(value, headers_of(ALERT_TYPE))])
        with AlertSubscriber(
            kafka.bootstrap,
            topic=names.shift_alerts,
            group=names.prefix,
            from_beginning=True,
            timeout_s=120,
        ) as alerts:
            seen.append(next(iter(alerts)).alert_id)
    assert seen == ["first", "second"]


@pytest.mark.integration
def test_iteration_ends_after_the_silence_asked_for(kafka: RunningKafka, names: TopicNames) -> None:
    with AlertSubscriber(kafka.bootstrap, topic=names.shift_alerts, timeout_s=0.3) as alerts:
        assert list(alerts) == []


@pytest.mark.integration
def test_a_missing_topic_names_the_command_that_creates_it(kafka: RunningKafka) -> None:
    for connect in (Publisher, AlertSubscriber, PredictionSubscriber):
        with pytest.raises(TopicMissing, match="emotrack topics create"):
            connect(kafka.bootstrap, topic="nowhere.utterances")


@pytest.mark.integration
def test_what_the_worker_would_refuse_is_refused_before_it_is_sent(
    kafka: RunningKafka, names: TopicNames
) -> None:
    with Publisher(kafka.bootstrap, topic=names.utterances) as publisher:
        for bad, code in (
            (Utterance("", "u", "s", text="hi"), "empty_id"),
            (Utterance("c", "u", "s"), "nothing_to_predict"),
            (Utterance("c", "u", "s", text="x" * (1 << 20)), "too_large"),
        ):
            with pytest.raises(InvalidUtterance) as refused:
                publisher.publish(bad)
            assert refused.value.code == code
        assert publisher.sent == 0


@pytest.mark.integration
def test_the_largest_utterance_the_broker_takes_goes_through(
    kafka: RunningKafka, names: TopicNames
) -> None:
    with Publisher(kafka.bootstrap, topic=names.utterances) as publisher:
        publisher.publish(Utterance("c", "u", "s", text="x" * 1_000_000))
    assert publisher.acknowledged == 1


@pytest.mark.integration
def test_a_record_the_broker_refuses_is_not_lost_in_silence(
    kafka: RunningKafka, names: TopicNames
) -> None:
    small = replace(
        plan(names)[0], name=names.prefix + "small", config={"max.message.bytes": "900"}
    )
    create(kafka.bootstrap, [small])
    publisher = Publisher(kafka.bootstrap, topic=small.name)
    publisher.publish(Utterance("c", "u", "s", text="x" * 5_000))
    with pytest.raises(NotDelivered, match="0 of 1 utterances are acknowledged"):
        publisher.flush()
    publisher.close()


@pytest.mark.slow
def test_the_client_speaks_to_the_mock_cluster_too(mock_broker: str) -> None:
    """Its answer to a version probe is one that kafka-python waits on for 30 s: we send none."""
    with Publisher(mock_broker) as publisher:
        publisher.publish(Utterance("c", "u", "s", text="hi"))
    assert publisher.acknowledged == 1
    produce(mock_broker, "emotrack.shift-alerts", [(encode(ALERT), headers_of(ALERT_TYPE))])
    for group in (None, "desk"):
        with AlertSubscriber(
            mock_broker, from_beginning=True, timeout_s=120, group=group
        ) as alerts:
            assert next(iter(alerts)) == ALERT


def test_no_broker_is_one_sentence_at_once() -> None:
    (port,) = free_ports(1)
    with pytest.raises(BrokerUnreachable, match=f"127.0.0.1:{port}.*start one"):
        Publisher(f"127.0.0.1:{port}")
    with pytest.raises(BrokerUnreachable, match="start one"):
        require_broker("")
    with pytest.raises(BrokerUnreachable, match="start one"):
        require_broker("127.0.0.1:http")


@pytest.mark.slow
def test_something_that_is_no_broker_is_said_to_be_none() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(BrokerUnreachable, match="does not answer as a Kafka broker"):
            require_topic(address, "t", timeout_s=1.0)


def test_a_port_may_be_left_out() -> None:
    assert broker_addresses("a, b:1 ,[::1]:2") == ["a:9092", "b:1", "[::1]:2"]


def test_the_client_brings_no_heavy_import() -> None:
    code = (
        "import sys, stream.client, stream.client.sources, stream.client.watch, stream.cli.client, "
        "stream.brokers.topics, stream.cli.doctor_checks, stream.events.schemas\n"
        "heavy = {'torch', 'redis', 'confluent_kafka', 'prometheus_client', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
