"""A process that uses every client of Kafka, waits for a fault, and closes them twice.

Run by `test_closing`: a fault leaves threads and sockets of the libraries to the end of a process.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from stream.brokers.batch_log import BatchLog
from stream.brokers.kafka_config import find_topic_id
from stream.brokers.kafka_sink import KafkaSink, KafkaTransactions
from stream.brokers.kafka_source import KafkaSource
from stream.brokers.partition_reader import KafkaReader
from stream.brokers.topic_reader import TopicReader
from stream.client import AlertSubscriber, PredictionSubscriber, Publisher, Utterance
from stream.errors import NotDelivered
from stream.ports import Outgoing, PortError, Start
from stream.security import PLAINTEXT
from stream.settings import Settings


class Closable(Protocol):
    def close(self) -> None: ...


class Failing:
    """An owner of partitions that fails when it is told that they leave."""

    def assigned(self, starts: Mapping[int, Start]) -> None:
        """Take them."""

    def revoked(self, partitions: Sequence[int]) -> None:
        raise PortError("no")

    def lost(self, partitions: Sequence[int]) -> None:
        raise PortError("no")


def used(settings: Settings) -> dict[str, Closable]:
    """Every client, each after some work."""
    topics, at = settings.topics, settings.bootstrap
    source = KafkaSource(settings, find_topic_id(settings))
    source.subscribe(Failing())
    until = time.monotonic() + 20
    while not source.lag() and time.monotonic() < until:
        source.poll(1, 0.1)
    assert source.lag() == {0: 0}
    sink, transactions = KafkaSink(settings), KafkaTransactions(settings, source)
    sink.produce([Outgoing(topics.predictions, b"c", b"v")])
    sink.flush(5)
    transactions.commit([Outgoing(topics.predictions, b"c", b"v")], {0: 0}, {0: ""})
    reader, inspector = KafkaReader(settings), TopicReader(settings)
    assert reader.first(0) == 0
    list(reader.read(0, 0, 1))
    list(inspector.read(topics.predictions, 0, inspector.bounds(topics.predictions)[0]))
    inspector.lost(topics.utterances, 0, [])
    batches = BatchLog(at, topics.utterances, PLAINTEXT)
    batches.lost(0, [(0, 1)])
    publisher = Publisher(at, topic=topics.utterances, timeout_s=3)
    publisher.publish(Utterance("c", "u1", "s", text="hello"))
    publisher.flush()
    subscribers = {
        f"{kind.__name__} {group}": kind(
            at, topic=topic, group=group, from_beginning=True, timeout_s=0.5
        )
        for kind, topic in (
            (PredictionSubscriber, topics.predictions),
            (AlertSubscriber, topics.shift_alerts),
        )
        for group in (None, f"{settings.topic_prefix}readers")
    }
    for subscriber in subscribers.values():
        list(subscriber)
    return {
        "sink": sink,
        "transactions": transactions,
        "reader": reader,
        "inspector": inspector,
        "batches": batches,
        "publisher": publisher,
        "source": source,
        **subscribers,
    }


def unconnected(settings: Settings) -> dict[str, Closable]:
    """Those that connect on first use."""
    source = KafkaSource(settings, "id")
    return {
        "sink": KafkaSink(settings),
        "transactions": KafkaTransactions(settings, source),
        "reader": KafkaReader(settings),
        "batches": BatchLog(settings.bootstrap, "t", PLAINTEXT),
        "source": source,
    }


def main(kind: str, bootstrap: str, prefix: str) -> None:
    """Use clients, wait for a line, close them, say so."""
    settings = Settings(bootstrap=bootstrap, topic_prefix=prefix, group=f"{prefix}workers")
    if kind == "publisher":
        publisher = Publisher(bootstrap, topic=settings.topics.utterances, timeout_s=2)
        publisher.publish(Utterance("c", "u1", "s", text="hello"))
        publisher.flush()
        wait()
        publisher.publish(Utterance("c", "u2", "s", text="hello"))
        try:
            publisher.close()
        except NotDelivered as error:
            print(error)
        publisher.close()
        return
    clients = used(settings) if kind == "used" else unconnected(settings)
    if kind == "used":
        clients["sink"].produce([Outgoing(settings.topics.predictions, b"c", b"v")])  # type: ignore[attr-defined]
    wait()
    for client in (*clients.values(), *clients.values()):
        client.close()
    print("closed", len(clients), flush=True)


def wait() -> None:
    """Let the test do its fault."""
    print("ready", flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main(*sys.argv[1:])
