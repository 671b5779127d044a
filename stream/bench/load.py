"""The benchmarks' own ends of the log: a script of messages, an open-loop sender, a collector.

Talks to Kafka through confluent-kafka directly: nothing of emotrack's own clients is in the timed
path. Loads are bounded in count and go to loopback.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
from confluent_kafka import Consumer, Producer, TopicPartition

from stream.events.cloudevents import CLIENT_SOURCE, UTTERANCE_TYPE, Encoding, event_headers
from stream.events.messages import Features, FeatureVector, PackedTensor, Utterance, encode

FEATURE_POOL: Final = 64  # different vectors; each message has one of them
PARTITION_READ_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Message:
    """One utterance event, ready to send."""

    utterance_id: str
    key: bytes
    value: bytes
    headers: list[tuple[str, str | bytes | None]]


@dataclass(frozen=True, slots=True)
class ScriptPlan:
    """What a script of utterances looks like: conversations take turns, two speakers each."""

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
    return Message(utterance.utterance_id, conversation.encode(), value, [*headers])


class Sender:
    """Sends messages as fast as the broker takes them, or at a fixed rate whatever comes back."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._topic = topic
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

    def open_loop(self, messages: Sequence[Message], rate: float) -> dict[str, float]:
        """Send `rate` a second; returns each message's due time (monotonic), late or not.

        Latency counted from the due time is free of coordinated omission.
        """
        began = time.monotonic() + 0.05
        due: dict[str, float] = {}
        for number, message in enumerate(messages):
            at = began + number / rate
            time.sleep(max(0.0, at - time.monotonic()))
            due[message.utterance_id] = at
            self._send(message)
        self._producer.flush(60)
        return due

    def _send(self, message: Message) -> None:
        while True:
            try:
                self._producer.produce(
                    self._topic, message.value, message.key, headers=message.headers
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
    """Notes when answers arrive, from the moment it was made; a context manager."""

    bootstrap: str
    topic: str
    arrived: dict[str, float] = field(default_factory=dict)  # utterance id -> monotonic
    sizes: list[int] = field(default_factory=list)  # bytes of each value
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Collector:
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "bench-collector",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 5,
                "log_level": 0,  # it outlives the broker by a moment
            }
        )
        partitions = consumer.list_topics(self.topic, timeout=10).topics[self.topic].partitions
        ends = [
            TopicPartition(
                self.topic,
                number,
                consumer.get_watermark_offsets(TopicPartition(self.topic, number), timeout=10)[1],
            )
            for number in partitions
        ]
        consumer.assign(ends)
        self._thread = threading.Thread(target=self._collect, args=(consumer,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(PARTITION_READ_S)

    def _collect(self, consumer: Consumer) -> None:
        decoder = msgspec.json.Decoder(_Answer)
        while not self._stop.is_set():
            message = consumer.poll(0.1)
            if message is None or message.error() is not None:
                continue
            value = message.value() or b"{}"
            self.arrived[decoder.decode(value).utterance_id] = time.monotonic()
            self.sizes.append(len(value))
        consumer.close()

    def wait_for(self, count: int, timeout_s: float) -> bool:
        """Wait until `count` answers came; false when `timeout_s` passed first."""
        deadline = time.monotonic() + timeout_s
        while len(self.arrived) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(self.arrived) >= count


def latencies_ms(due: dict[str, float], arrived: dict[str, float]) -> list[float]:
    """Milliseconds from due to arrived, for what arrived, ascending."""
    return sorted((at - due[name]) * 1000 for name, at in arrived.items() if name in due)


def quantile(ascending: Sequence[float], q: float) -> float:
    """The value that a share `q` of the sample does not exceed; NaN for no sample."""
    if not ascending:
        return math.nan
    return ascending[min(len(ascending) - 1, math.ceil(q * len(ascending)) - 1)]


def commit_all(bootstrap: str, group: str, topic: str, partitions: int) -> None:
    """Commit the end of every partition for a group that nobody has joined yet."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "log_level": 0})
    ends = []
    for partition in range(partitions):
        at = TopicPartition(topic, partition)
        _, at.offset = consumer.get_watermark_offsets(at, timeout=30)
        ends.append(at)
    consumer.commit(offsets=ends, asynchronous=False)
    consumer.close()
