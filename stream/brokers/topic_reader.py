"""Read a topic from its start to a fixed end: for commands that inspect, not for the worker.

A reader joins no group, commits nothing and sees committed transactions only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from stream.brokers.batch_log import BatchLog
from stream.brokers.kafka_admin import require_broker
from stream.brokers.kafka_config import (
    NO_TOPIC_ID,
    close_quietly,
    code_of,
    connection,
    create_client,
    retry,
    text_of,
)
from stream.brokers.kafka_source import record_of
from stream.errors import AccessRefused, BrokerUnreachable, EmotrackError, TopicMissing
from stream.ports import Hole, LogUnavailable, Record, lost_of
from stream.settings import Settings

Result = TypeVar("Result")
CHUNK: Final = 1_000  # most records of a chunk
SILENCE_S: Final = 30.0  # a broker that sends nothing for longer counts as gone
CALL_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """The first offset still in a partition, and the one after its last."""

    low: int
    end: int


class TopicReader:
    """A reader of one cluster's topics. Connects at once.

    The constructor and every method may raise `BrokerUnreachable` and `AccessRefused`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._batches: dict[str, BatchLog] = {}
        self.broker_time = True  # all records read carry the broker's time, which never goes back
        require_broker(settings.bootstrap, CALL_S, settings.security)
        self._consumer = create_client(
            Consumer,
            {
                # Named to read this group's committed offsets; never joined.
                "group.id": settings.group,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                # Retention may delete the first records under a long read: go on with the next.
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 50,
                **connection(settings),
            },
        )

    def bounds(self, topic: str) -> dict[int, Bounds]:
        """Return the present bounds of each partition. Raises `TopicMissing`."""
        metadata = self._call(
            lambda: self._consumer.list_topics(topic, timeout=CALL_S).topics[topic],
            f"topic {topic} cannot be looked up",
        )
        if not metadata.partitions:
            raise TopicMissing(
                f"topic {topic} does not exist on {self._settings.bootstrap}: check "
                "--topic-prefix, or create it with `emotrack topics create`"
            )
        return {p: self._bounds(TopicPartition(topic, p)) for p in sorted(metadata.partitions)}

    def _bounds(self, at: TopicPartition) -> Bounds:
        low, end = self._call(
            lambda: self._consumer.get_watermark_offsets(at, timeout=CALL_S),
            f"the ends of {at.topic} cannot be read",
        )
        return Bounds(low, end)

    def at(self, topic: str, times_ms: Mapping[int, int]) -> dict[int, int]:
        """Return the first offset of each partition with a record of that time or later.

        The partition's end where there is none.
        """
        wanted = [TopicPartition(topic, p, max(0, ms)) for p, ms in times_ms.items()]
        found = self._call(
            lambda: self._consumer.offsets_for_times(wanted, timeout=CALL_S),
            f"the times of {topic} cannot be looked up",
        )
        return {at.partition: at.offset if at.offset >= 0 else self._bounds(at).end for at in found}

    def committed(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Return the group's next offset of each partition, -1 where it has committed none."""
        request = [TopicPartition(topic, p) for p in partitions]
        found = self._call(
            lambda: self._consumer.committed(request, timeout=CALL_S),
            f"the offsets of group {self._settings.group} cannot be read",
        )
        return {at.partition: max(-1, at.offset) for at in found}

    def topic_id(self, topic: str) -> str:
        """Return a topic's id, as in the keys of its states; the zero UUID on the mock cluster."""
        if self._settings.mock_broker:
            return NO_TOPIC_ID
        admin = create_client(AdminClient, connection(self._settings))
        described = self._call(
            lambda: admin.describe_topics(TopicCollection([topic]), request_timeout=CALL_S)[
                topic
            ].result(CALL_S),
            f"topic {topic} cannot be described",
        )
        return str(described.topic_id)

    def read(self, topic: str, partition: int, bounds: Bounds) -> Iterator[list[Record]]:
        """Yield a partition's records within `bounds` in log order, in chunks."""
        if bounds.low >= bounds.end:
            return
        self._consumer.assign([TopicPartition(topic, partition, bounds.low)])
        try:
            received, ended = time.monotonic(), False
            while not ended:
                messages = self._consumer.consume(CHUNK, 0.2)
                if messages:
                    received = time.monotonic()
                elif time.monotonic() - received > SILENCE_S:
                    raise self._fault(None, f"{topic} sends nothing")
                records, ended = self._records(messages, bounds.end)
                if records:
                    yield records
        finally:
            self._consumer.unassign()

    def lost(self, topic: str, partition: int, holes: Sequence[Hole]) -> list[Hole]:
        """Return the parts of `holes` (ascending) whose records were removed from the log."""
        if not holes:
            return []
        if topic not in self._batches:
            self._batches[topic] = BatchLog(
                self._settings.bootstrap, topic, self._settings.security
            )
        try:
            return lost_of(self._batches[topic], partition, holes)
        except LogUnavailable as error:
            raise self._fault(None, str(error)) from None

    def _records(self, messages: list[Message], end: int) -> tuple[list[Record], bool]:
        """Return the records among messages that are before `end`, and whether it is reached."""
        records: list[Record] = []
        for message in messages:
            error = message.error()
            if error is None:
                record = record_of(message, message.topic() or "")
                self.broker_time &= message.timestamp()[0] == TIMESTAMP_LOG_APPEND_TIME
                if record.offset < end:
                    records.append(record)
                if record.offset >= end - 1:
                    return records, True
            elif error.code() == KafkaError._PARTITION_EOF:
                return records, True  # the last offsets may be transaction markers
            elif error.code() not in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                raise self._fault(error.code(), error.str())
        return records, False

    def close(self) -> None:
        """Disconnect; idempotent, never raises."""
        for batches in self._batches.values():
            batches.close()
        close_quietly(self._consumer.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, call: Callable[[], Result], fault: str) -> Result:
        try:
            return retry(call, fault)
        except (LogUnavailable, KafkaException, TimeoutError) as error:
            raise self._fault(code_of(error), text_of(error)) from None

    def _fault(self, code: int | None, text: str) -> EmotrackError:
        if code in (
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.GROUP_AUTHORIZATION_FAILED,
        ):
            return AccessRefused(
                f"the broker at {self._settings.bootstrap} does not allow that ({text}): add the "
                "ACLs of docs/security.md"
            )
        return BrokerUnreachable(
            f"Kafka at {self._settings.bootstrap} does not answer ({text}): try again when it does"
        )
