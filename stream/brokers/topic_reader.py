"""Read a topic from its start to where it ended when asked: for commands that look, never for work.

A reader joins no group, commits nothing and sees committed transactions only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
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

from stream.brokers.kafka_admin import require_broker
from stream.brokers.kafka_config import (
    NO_TOPIC_ID,
    code_of,
    connection,
    create_client,
    retry,
    text_of,
)
from stream.brokers.kafka_source import record_of
from stream.errors import AccessRefused, BrokerUnreachable, EmotrackError, TopicMissing
from stream.ports import LogUnavailable, Record
from stream.settings import Settings

Answer = TypeVar("Answer")
CHUNK: Final = 1_000  # records handed over at once, at most
SILENCE_S: Final = 30.0  # a broker that sends nothing for so long has gone
CALL_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """The first offset a partition still holds, and the one after its last."""

    low: int
    end: int


class TopicReader:
    """Reads topics of one cluster. Connects at once; raises `BrokerUnreachable`, `AccessRefused`.

    Every method may raise these two.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.broker_time = True  # of all that was read: the broker's clock, so it never goes back
        require_broker(settings.bootstrap, CALL_S, settings.security)
        self._consumer = create_client(
            Consumer,
            {
                # Named, so that the offsets of this group can be asked for; never joined.
                "group.id": settings.group,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 50,
                **connection(settings),
            },
        )

    def bounds(self, topic: str) -> dict[int, Bounds]:
        """Return where each partition begins and ends now. Raises `TopicMissing`."""
        found = self._ask(
            lambda: self._consumer.list_topics(topic, timeout=CALL_S).topics[topic],
            f"topic {topic} cannot be looked up",
        )
        if not found.partitions:
            raise TopicMissing(
                f"topic {topic} does not exist on {self._settings.bootstrap}: check "
                "--topic-prefix, or create it with `emotrack topics create`"
            )
        return {p: self._bounds(TopicPartition(topic, p)) for p in sorted(found.partitions)}

    def _bounds(self, at: TopicPartition) -> Bounds:
        low, end = self._ask(
            lambda: self._consumer.get_watermark_offsets(at, timeout=CALL_S),
            f"the ends of {at.topic} cannot be read",
        )
        return Bounds(low, end)

    def committed(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """The group's next offset of each partition, -1 where it has committed none."""
        wanted = [TopicPartition(topic, p) for p in partitions]
        found = self._ask(
            lambda: self._consumer.committed(wanted, timeout=CALL_S),
            f"the offsets of group {self._settings.group} cannot be read",
        )
        return {at.partition: max(-1, at.offset) for at in found}

    def topic_id(self, topic: str) -> str:
        """The id of a topic, as in the keys of its states; the zero UUID on the mock cluster."""
        if self._settings.mock_broker:
            return NO_TOPIC_ID
        admin = create_client(AdminClient, connection(self._settings))
        described = self._ask(
            lambda: admin.describe_topics(TopicCollection([topic]), request_timeout=CALL_S)[
                topic
            ].result(CALL_S),
            f"topic {topic} cannot be described",
        )
        return str(described.topic_id)

    def read(self, topic: str, partition: int, bounds: Bounds) -> Iterator[list[Record]]:
        """A partition's records in log order, in chunks, up to where it ended when asked."""
        if bounds.low >= bounds.end:
            return
        self._consumer.assign([TopicPartition(topic, partition, bounds.low)])
        try:
            heard = time.monotonic()
            while True:
                messages = self._consumer.consume(CHUNK, 0.2)
                if messages:
                    heard = time.monotonic()
                elif time.monotonic() - heard > SILENCE_S:
                    raise self._away(f"{topic} sends nothing")
                records, ended = self._records(messages, bounds.end)
                if records:
                    yield records
                if ended:
                    return
        finally:
            self._consumer.unassign()

    def _records(self, messages: list[Message], end: int) -> tuple[list[Record], bool]:
        """The records among messages that lie before `end`, and whether it is reached."""
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
                return records, True  # the last offsets may be a transaction's marks
            elif error.code() not in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                raise self._fault(error.code(), error.str())
        return records, False

    def close(self) -> None:
        """Disconnect; idempotent."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, ask: Callable[[], Answer], what: str) -> Answer:
        try:
            return retry(ask, what)
        except (LogUnavailable, KafkaException, TimeoutError) as error:
            raise self._fault(code_of(error), text_of(error)) from None

    def _fault(self, code: int | None, says: str) -> EmotrackError:
        if code in (
            KafkaError.TOPIC_AUTHORIZATION_FAILED,
            KafkaError.GROUP_AUTHORIZATION_FAILED,
        ):
            return AccessRefused(
                f"the broker at {self._settings.bootstrap} does not allow that ({says}): add the "
                "ACLs of docs/security.md"
            )
        return self._away(says)

    def _away(self, says: str) -> BrokerUnreachable:
        return BrokerUnreachable(
            f"Kafka at {self._settings.bootstrap} does not answer ({says}): try again when it does"
        )
