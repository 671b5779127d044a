"""The benchmarks' own ends of the log: a script of messages, an open-loop sender, a collector.

Talks to Kafka through confluent-kafka directly: nothing of emotrack's own clients is in the timed
path. Loads are bounded in count and go to loopback.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from stream.events.cloudevents import CLIENT_SOURCE, UTTERANCE_TYPE, Encoding, event_headers
from stream.events.messages import (
    Features,
    FeatureVector,
    PackedTensor,
    TopicNames,
    Utterance,
    encode,
)

SHIPPED_WIDTHS: Final = (384, 8, 17)  # inputs of the shipped PCGNet
FEATURE_POOL: Final = 64  # different vectors; each message has one of them
PARTITION_READ_S: Final = 10.0
DRAIN_S: Final = 120.0  # for the answers of a flood

Name = tuple[bytes, str]  # key and utterance id


@dataclass(frozen=True, slots=True)
class Message:
    """One utterance event, ready to send."""

    name: Name
    value: bytes
    headers: list[tuple[str, str | bytes | None]]


@dataclass(frozen=True, slots=True)
class ScriptPlan:
    """Shape of a script of utterances: conversations take turns, two speakers each."""

    prefix: str  # of conversation ids: a new one never meets old state
    conversations: int
    utterances: int  # in all
    widths: tuple[int, int, int] | None = (1024, 300, 342)  # text, audio, video; None: raw text
    sentences: Sequence[str] = ()  # for raw text


def script(plan: ScriptPlan, seed: int = 0) -> list[Message]:
    """Make the messages of a plan: MessagePack with float16 vectors, or JSON with raw text."""
    rng = np.random.default_rng(seed)
    pool = [_features(rng, plan.widths) for _ in range(FEATURE_POOL)] if plan.widths else []
    return [_message(plan, number, pool) for number in range(plan.utterances)]


def _features(rng: np.random.Generator, widths: tuple[int, int, int]) -> Features:
    vectors = (
        FeatureVector(PackedTensor("float16", (w,), rng.standard_normal(w).astype("<f2").tobytes()))
        for w in widths
    )
    return Features(*vectors)


def _message(plan: ScriptPlan, number: int, pool: Sequence[Features]) -> Message:
    turn, which = divmod(number, plan.conversations)
    conversation = f"{plan.prefix}-{which:05d}"
    utterance = Utterance(
        conversation_id=conversation,
        utterance_id=f"{plan.prefix}#{number}",
        speaker_id="customer" if turn % 2 else "agent",
        seq=turn,
        text=None if pool else plan.sentences[number % len(plan.sentences)],
        features=pool[number * 7 % len(pool)] if pool else None,
        persona=[0.33, 0.25, 0.27, 0.32, 0.29] if pool else None,
    )
    encoding: Encoding = "msgpack" if pool else "json"
    headers = event_headers(
        id=utterance.utterance_id, type=UTTERANCE_TYPE, source=CLIENT_SOURCE, encoding=encoding
    )
    value = encode(utterance, encoding)
    return Message((conversation.encode(), utterance.utterance_id), value, [*headers])


class Sender:
    """Sends utterances as fast as the broker takes them, or at a fixed rate whatever comes back."""

    def __init__(self, bootstrap: str, topics: TopicNames) -> None:
        self._bootstrap, self._topics = bootstrap, topics
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "partitioner": "murmur2_random",
                "linger.ms": 0,
                "queue.buffering.max.messages": 1_000_000,
                "log_level": 0,
            }
        )

    def flood(self, messages: Sequence[Message]) -> None:
        """Send everything and wait for the last acknowledgement."""
        for message in messages:
            self._send(message)
        self._producer.flush(60)

    def answered(self, messages: Sequence[Message], timeout_s: float = DRAIN_S) -> Collector:
        """Send everything at once and return when all is answered. Raises `TimeoutError`."""
        with collecting(self._bootstrap, self._topics.predictions) as collector:
            self.flood(messages)
            collector.wait_for(len(messages), timeout_s)
            return collector

    def open_loop(self, messages: Sequence[Message], rate: float) -> dict[Name, float]:
        """Send `rate` a second; returns each message's due time (monotonic), late or not.

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

    def _send(self, message: Message) -> None:
        key, _ = message.name
        while True:
            try:
                self._producer.produce(
                    self._topics.utterances, message.value, key, headers=message.headers
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
        """Note answers until `stop` is set."""
        decoder = msgspec.json.Decoder(_Answer)
        while not stop.is_set():
            message = consumer.poll(0.1)
            if message is None or message.error() is not None:
                continue
            value = message.value() or b"{}"
            name = message.key() or b"", decoder.decode(value).utterance_id
            self.arrived[name] = time.monotonic()
            self.sizes.append(len(value))

    def wait_for(self, count: int, timeout_s: float) -> None:
        """Return when `count` answers came. Raises `TimeoutError`."""
        deadline = time.monotonic() + timeout_s
        while len(self.arrived) < count:
            if time.monotonic() > deadline:
                missing = count - len(self.arrived)
                raise TimeoutError(f"{missing} of {count} answers are missing")
            time.sleep(0.01)

    def per_s(self) -> float:
        """Answers a second, from the first to the last."""
        times = self.arrived.values()
        return (len(times) - 1) / max(max(times) - min(times), 1e-9)


@contextmanager
def collecting(bootstrap: str, topic: str) -> Iterator[Collector]:
    """Collect what is written to `topic` from now until the block ends."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "bench-collector",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 5,
            "log_level": 0,  # it outlives the broker by a moment
        }
    )
    consumer.assign(ends_of(consumer, topic))
    collector, stop = Collector(), threading.Event()
    thread = threading.Thread(target=collector.collect, args=(consumer, stop), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        stop.set()
        thread.join(PARTITION_READ_S)
        consumer.close()


def latencies_ms(due: Mapping[Name, float], arrived: Mapping[Name, float]) -> list[float]:
    """Milliseconds from due to arrived, for what arrived, ascending."""
    return sorted((at - due[name]) * 1000 for name, at in arrived.items() if name in due)


def quantile(ascending: Sequence[float], q: float) -> float:
    """The value that a share `q` of the sample does not exceed; NaN for no sample."""
    if not ascending:
        return math.nan
    return ascending[min(len(ascending) - 1, math.ceil(q * len(ascending)) - 1)]


def commit_all(bootstrap: str, group: str, topic: str) -> None:
    """Commit the end of every partition for a group that has no member yet."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": 0})
    consumer.commit(offsets=ends_of(consumer, topic), asynchronous=False)
    consumer.close()


def ends_of(consumer: Consumer, topic: str) -> list[TopicPartition]:
    """The present end of each partition."""
    ends = []
    for partition in consumer.list_topics(topic, timeout=10).topics[topic].partitions:
        at = TopicPartition(topic, partition)
        _, at.offset = consumer.get_watermark_offsets(at, timeout=30)
        ends.append(at)
    return ends
