"""The worker's idempotent producer, on confluent-kafka."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from stream.brokers.kafka_config import create_client, producer_config
from stream.ports import DeliveryFailed, Outgoing
from stream.settings import Settings


class KafkaSink:
    """The worker's producer; a fatally broken one is replaced by a fresh one."""

    def __init__(self, settings: Settings) -> None:
        self._config = producer_config(settings)
        self._failures: list[KafkaError] = []
        self._producer = self._new_producer()

    def _new_producer(self) -> Producer:
        return create_client(Producer, self._config)

    def produce(self, records: Sequence[Outgoing]) -> None:
        for r in records:
            headers: Any = list(r.headers)
            while True:
                try:
                    self._producer.produce(
                        r.topic, r.value, r.key, headers=headers, on_delivery=self._delivered
                    )
                    break
                except BufferError:  # the bounded queue is full: let it drain
                    self._producer.poll(0.1)
                except KafkaException as error:
                    self._failures.append(error.args[0])
                    break

    def flush(self, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        while self._producer.flush(max(0.0, until - time.monotonic())):
            if time.monotonic() >= until:
                return False
        failures, self._failures = self._failures, []
        if not failures:
            return True
        if any(f.fatal() for f in failures):
            self._producer = self._new_producer()
        raise DeliveryFailed(f"{len(failures)} records were not delivered: {failures[0].str()}")

    def close(self) -> None:
        self._producer.purge()
        self._producer.flush(0)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(error)
