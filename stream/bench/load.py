"""The benchmarks' own Kafka clients: a script of messages, an open-loop sender, a collector.

Talks to Kafka through confluent-kafka directly: nothing of emotrack's own clients is in the timed
path. Loads are bounded in count and go to loopback.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

import msgspec
import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from stream.events.cloudevents import CLIENT_SOURCE, UTTERANCE_TYPE, Encoding, event_headers
from stream.events.decode import pack
from stream.events.messages import Features, FeatureVector, TopicNames, Utterance, encode

PAPER_WIDTHS: Final = (1024, 300, 342)  # inputs of the paper's PCGNet: text, audio, video
SHIPPED_WIDTHS: Final = (384, 8, 17)  # of the shipped one
FEATURE_POOL: Final = 64  # different vectors; each message has one of them
PARTITION_READ_S: Final = 10.0
DRAIN_S: Final = 120.0  # for the answers of a flood

Name = tuple[bytes, str]  # key and utterance id


@dataclass(frozen=True, slots=True)
class UtteranceMessage:
    """One utterance event, ready to send."""

    name: Name
    value: bytes
    headers: list[tuple[str, str | bytes | None]]


def script(
    prefix: str,
    conversations: int,
    utterances: int,
    *,
    widths: tuple[int, int, int] = PAPER_WIDTHS,
    sentences: Sequence[str] = (),
    seed: int = 0,
    turns: int | None = None,
) -> list[UtteranceMessage]:
    """Return `utterances` events of conversations that take turns, two speakers each.

    With `turns`, a conversation ends after as many and another takes its place; at the start they
    are at different turns, as they would be after a long time.

    MessagePack with float16 vectors of `widths` (text, audio, video), or JSON with raw text where
    there are `sentences`. Conversation ids start with `prefix`: a new one never meets old state.
    """
    rng = np.random.default_rng(seed)
    pool: list[Features] = []
    if not sentences:
        vectors = (
            [FeatureVector(pack(rng.standard_normal(w), "float16")) for w in widths]
            for _ in range(FEATURE_POOL)
        )
        pool = [Features(*three) for three in vectors]
    encoding: Encoding = "msgpack" if pool else "json"
    messages = []
    for number in range(utterances):
        turn, which = divmod(number, conversations)
        name = f"{prefix}-{which:05d}"
        if turns is not None:
            past, turn = divmod(turn + which * turns // conversations, turns)
            name = f"{name}-{past}"
        utterance = Utterance(
            conversation_id=name,
            utterance_id=f"{prefix}#{number}",
            speaker_id="customer" if turn % 2 else "agent",
            seq=turn,
            text=None if pool else sentences[number % len(sentences)],
            features=pool[number * 7 % len(pool)] if pool else None,
            persona=[0.33, 0.25, 0.27, 0.32, 0.29] if pool else None,
        )
        headers = event_headers(
            id=utterance.utterance_id, type=UTTERANCE_TYPE, source=CLIENT_SOURCE, encoding=encoding
        )
        named = name.encode(), utterance.utterance_id
        messages.append(UtteranceMessage(named, encode(utterance, encoding), [*headers]))
    return messages


class Sender:
    """A sender of utterances, as fast as the broker takes them or at a fixed rate."""

    def __init__(self, bootstrap: str, topics: TopicNames) -> None:
        self.bootstrap, self.topics = bootstrap, topics
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "linger.ms": 0,
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 0,
            }
        )

    def flood(self, messages: Sequence[UtteranceMessage]) -> None:
        """Send all messages and wait for the last acknowledgement."""
        for message in messages:
            self._send(message)
        self._producer.flush(60)

    def answered(
        self, messages: Sequence[UtteranceMessage], timeout_s: float = DRAIN_S
    ) -> Collector:
        """Send all messages and return when all are answered. Raises `TimeoutError`."""
        with collecting(self.bootstrap, self.topics.predictions) as collector:
            self.flood(messages)
            collector.wait_for(len(messages), timeout_s)
            return collector

    def open_loop(self, messages: Sequence[UtteranceMessage], rate: float) -> dict[Name, float]:
        """Send `rate` a second; return each message's due time (monotonic), late or not.

        Latency counted from the due time is free of coordinated omission.
        """
        began = time.monotonic() + 0.05
        due: dict[Name, float] = {}
        for number, message in enumerate(messages):
            at = began + number / rate
            time.sleep(max(0.0, at - time.monotonic()))
            due[message.name] = at
            self._send(message)
        self._producer.flush(60)
        return due

    def say(self, message: UtteranceMessage) -> None:
        """Send one message and wait for its acknowledgement."""
        self._send(message)
        self._producer.flush(60)

    def _send(self, message: UtteranceMessage) -> None:
        key, _ = message.name
        while True:
            try:
                self._producer.produce(
                    self.topics.utterances, message.value, key, headers=message.headers
                )
            except BufferError:
                self._producer.poll(0.05)
            else:
                self._producer.poll(0)
                return


class _Answer(msgspec.Struct):
    """The one field of an answer that the collector reads."""

    utterance_id: str


@dataclass(slots=True)
class Collector:
    """Arrival times of the answers on a topic, and their sizes."""

    arrived: dict[Name, float] = field(default_factory=dict)  # monotonic
    sizes: list[int] = field(default_factory=list)  # bytes of each value

    def collect(self, consumer: Consumer, stop: threading.Event) -> None:
        """Record answers until `stop` is set."""
        decoder = msgspec.json.Decoder(_Answer)
        for key, value in arriving(consumer, stop):
            name = key, decoder.decode(value).utterance_id
            self.arrived[name] = time.monotonic()
            self.sizes.append(len(value))

    def wait_for(self, count: int, timeout_s: float) -> None:
        """Return when `count` answers have arrived. Raises `TimeoutError`."""
        deadline = time.monotonic() + timeout_s
        while len(self.arrived) < count:
            if time.monotonic() > deadline:
                missing = count - len(self.arrived)
                raise TimeoutError(f"{missing} of {count} answers are missing")
            time.sleep(0.01)

    def per_s(self) -> float:
        """Return answers a second, from the first to the last."""
        times = self.arrived.values()
        return (len(times) - 1) / max(max(times) - min(times), 1e-9)


def arriving(consumer: Consumer, stop: threading.Event) -> Iterator[tuple[bytes, bytes]]:
    """Yield key and value of each record, as it arrives, until `stop` is set."""
    while not stop.is_set():
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            yield message.key() or b"", message.value() or b"{}"


class Collects(Protocol):
    """A collector of what a consumer reads until it is told to stop."""

    def collect(self, consumer: Consumer, stop: threading.Event) -> None: ...


C = TypeVar("C", bound=Collects)


def collecting(bootstrap: str, topic: str) -> AbstractContextManager[Collector]:
    """Collect what is written to `topic` from now until the block ends."""
    return collecting_into(Collector(), bootstrap, topic)


@contextmanager
def collecting_into(collector: C, bootstrap: str, topic: str) -> Iterator[C]:
    """Let `collector` collect what is written to `topic` from now until the block ends."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench-collector",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 5,
            "log_level": 0,  # it closes a moment after the broker
        }
    )
    consumer.assign(ends_of(consumer, topic))
    stop = threading.Event()
    thread = threading.Thread(target=collector.collect, args=(consumer, stop), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        stop.set()
        thread.join(PARTITION_READ_S)
        consumer.close()


def latencies_ms(due: Mapping[Name, float], arrived: Mapping[Name, float]) -> list[float]:
    """Return milliseconds from due to arrived, of the messages that arrived."""
    return [(at - due[name]) * 1000 for name, at in arrived.items() if name in due]


def commit_all(bootstrap: str, group: str, topic: str) -> None:
    """Commit the end of every partition for a group that has no member yet."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": 0})
    consumer.commit(offsets=ends_of(consumer, topic), asynchronous=False)
    consumer.close()


def ends_of(consumer: Consumer, topic: str) -> list[TopicPartition]:
    """Return the present end of each partition."""
    ends = []
    for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
        at = TopicPartition(topic, partition)
        _, at.offset = consumer.get_watermark_offsets(at, timeout=30)
        ends.append(at)
    return ends
