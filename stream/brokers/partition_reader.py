"""Read any stretch of the utterances topic, for rebuilds: a consumer that belongs to no group."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from stream.brokers.batch_log import BatchLog
from stream.brokers.kafka_config import (
    CALL_S,
    Lookup,
    close_quietly,
    connection,
    create_client,
    text_of,
)
from stream.brokers.kafka_source import record_of
from stream.ports import LogUnavailable, Record, Stretch
from stream.settings import Settings

PORTION: Final = 1_000
WAIT_S: Final = 0.05  # longest wait for a portion
FETCH_WAIT_MS: Final = 10  # a fetch at the log's end would delay the next stretch's first one


class KafkaReader(Lookup):
    """A `LogReader` on confluent-kafka; connects on first use."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._batches = BatchLog(settings.bootstrap, self._topic, settings.security)
        self._consumer_config: dict[str, Any] = {
            "group.id": f"{settings.group}.rebuild",  # librdkafka wants one; it is never joined
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "enable.partition.eof": True,
            "queued.max.messages.kbytes": 16_384,
            "fetch.wait.max.ms": FETCH_WAIT_MS,
            **connection(settings),
        }

    @cached_property
    def _consumer(self) -> Consumer:
        return create_client(Consumer, self._consumer_config)

    def read(self, partition: int, first: int, end: int) -> Iterator[list[Record]]:
        if first >= end:
            return
        self._consumer.assign([TopicPartition(self._topic, partition, first)])
        try:
            received = time.monotonic()
            while True:
                messages = self._consumer.consume(PORTION, WAIT_S)
                errors = [error for m in messages if (error := m.error()) is not None]
                records = [record_of(m, self._topic) for m in messages if m.error() is None]
                yield [r for r in records if r.offset < end]
                done = any(error.code() == KafkaError._PARTITION_EOF for error in errors)
                if done or any(r.offset >= end - 1 for r in records) or self._past(end):
                    return
                if records:
                    received = time.monotonic()
                elif time.monotonic() - received > CALL_S:
                    fault = f": {errors[0].str()}" if errors else ""
                    raise LogUnavailable(f"partition {partition} cannot be read at {first}{fault}")
        finally:
            self._consumer.unassign()

    def _past(self, end: int) -> bool:
        """Return whether all below `end` was read: the last offsets may be transaction markers."""
        try:
            return any(
                at.offset >= end for at in self._consumer.position(self._consumer.assignment())
            )
        except KafkaException as error:
            raise LogUnavailable(f"the log cannot be read: {text_of(error)}") from None

    def lost(self, partition: int, holes: Sequence[Stretch]) -> Sequence[Stretch]:
        return self._batches.lost(partition, holes)

    def close(self) -> None:
        super().close()
        self._batches.close()
        if (consumer := vars(self).pop("_consumer", None)) is not None:
            close_quietly(consumer.close)
