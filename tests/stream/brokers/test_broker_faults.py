"""Each code of a broker or of the client library: the reaction of a worker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from confluent_kafka import KafkaError

from stream.brokers.broker_faults import KINDS, TABLE, UNKNOWN, Act, Kind, kind_of, markdown
from stream.brokers.kafka_sink import Failure, KafkaSink
from stream.brokers.kafka_source import KafkaSource
from stream.errors import AccessRefused
from stream.ports import (
    CommitRefused,
    DeliveryFailed,
    LogUnavailable,
    OutputRefused,
    TopicChanged,
)
from stream.settings import Settings
from stream.worker.throttle import Throttle

LINES = [pytest.param(code, kind, id=KafkaError(code).name()) for code, kind in KINDS.items()]


@pytest.fixture
def source() -> Iterator[KafkaSource]:
    """A member that never connects."""
    made = KafkaSource(Settings(bootstrap="127.0.0.1:1"), "id")
    yield made
    made.close()


@pytest.fixture
def sink() -> Iterator[KafkaSink]:
    made = KafkaSink(Settings(bootstrap="127.0.0.1:1"))
    yield made
    made.close()


@pytest.mark.parametrize(
    ("code", "kind"), [line for line in LINES if line.values[0] != KafkaError._FATAL]
)
def test_while_reading(source: KafkaSource, code: int, kind: Kind) -> None:
    """A fault that cannot heal ends the worker with its sentence; any other is logged."""
    error = KafkaError(code)
    if kind.act is Act.END:
        with pytest.raises((TopicChanged, AccessRefused, LogUnavailable)) as ended:
            source._on_error(error)
        assert kind.says.partition("`")[0].split(": ")[-1].strip() in str(ended.value)
        return
    with structlog.testing.capture_logs(processors=[Throttle()]) as lines:
        source._on_error(error)
        source._on_error(error)
    (line,) = lines
    assert line["reason"] == error.str()
    assert line["cure"] == (kind.says or None)


@pytest.mark.parametrize(
    ("cause", "ends", "says"),
    [
        ("Broker: Group authorization failed", AccessRefused, "add the ACLs of docs/security.md"),
        ("Broker: Static consumer fenced by other consumer with same group.instance.id",
         LogUnavailable, "another worker has the same group.instance.id"),
        ("something new", LogUnavailable, "something new"),
    ],
)  # fmt: skip
def test_a_consumer_that_is_fatally_broken_ends_with_what_caused_it(
    source: KafkaSource, cause: str, ends: type[Exception], says: str
) -> None:
    """thomhurst/Dekaf#1347: it reads nothing any more, also when the cause is cured."""
    with pytest.raises(ends, match=says):
        source._on_error(KafkaError(KafkaError._FATAL, f"Fatal error: {cause}"))


@pytest.mark.parametrize(("code", "kind"), LINES)
def test_while_committing(source: KafkaSource, code: int, kind: Kind) -> None:
    met = source._commit_failed(code, "no")
    again = kind.act is Act.AGAIN or code == KafkaError.FENCED_INSTANCE_ID
    assert isinstance(met, CommitRefused if again else LogUnavailable)


@pytest.mark.parametrize(("code", "kind"), LINES)
def test_while_producing(sink: KafkaSink, code: int, kind: Kind) -> None:
    """Nothing is given up: it is sent again, by a new producer where the old one is broken."""
    sink._failures.append(Failure("emotrack.predictions", KafkaError(code)))
    before = sink._producer
    with pytest.raises(DeliveryFailed) as failed:
        sink.flush(1.0)
    refused = (
        kind.act is Act.HOLD
        or (kind.act is Act.END and "topic" in kind.says)
        or (
            code == KafkaError.TOPIC_AUTHORIZATION_FAILED
            or code == KafkaError.GROUP_AUTHORIZATION_FAILED
        )
    )
    assert isinstance(failed.value, OutputRefused) == refused
    assert (sink._producer is not before) == (kind.act is Act.RENEW)
    assert "emotrack.predictions" in str(failed.value)
    assert kind.says in str(failed.value)
    assert sink.flush(1.0), "the next batch is not blamed for it"


def test_an_unknown_code_is_waited_for_and_said(source: KafkaSource, sink: KafkaSink) -> None:
    assert kind_of(9_999) is UNKNOWN and kind_of(None) is UNKNOWN
    with structlog.testing.capture_logs() as lines:
        source._on_error(KafkaError(KafkaError.INVALID_CONFIG))
    assert [line["event"] for line in lines] == ["Kafka reports a fault"]


def test_a_lost_connection_is_looked_at_and_a_lost_commit_is_no_readiness(
    source: KafkaSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One broker of three that goes is no outage; until a look, a commit's fault counts."""
    looks: list[float] = []
    monkeypatch.setattr(source._watch, "soon", lambda: looks.append(time.monotonic()))
    for n, code in enumerate((KafkaError._RESOLVE, KafkaError._SSL, KafkaError._AUTHENTICATION)):
        source._on_error(KafkaError(code))
        assert source.reachable() and len(looks) == n + 1
    source._watch.answered_at = time.monotonic()  # a look that was answered
    source._commit_failed(KafkaError._TIMED_OUT, "no")
    assert not source.reachable() and len(looks) == 4
    source._watch.answered_at = time.monotonic()
    assert source.reachable()


def test_no_code_has_two_lines() -> None:
    codes = [code for kind in TABLE for code in kind.codes]
    assert len(codes) == len(set(codes))


def test_the_page_has_the_table() -> None:
    page = (Path(__file__).parents[3] / "docs/reliability.md").read_text("utf-8")
    assert markdown() in page, "run: python -m stream.brokers.broker_faults"
