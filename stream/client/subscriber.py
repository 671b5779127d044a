"""Iterate over predictions or shift alerts: synchronous, typed, on kafka-python."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, Generic, Self, TypeVar

import kafka
import kafka.errors
import msgspec

from stream.brokers.kafka_admin import client_arguments, not_allowed, require_topic
from stream.client.publisher import DEFAULT_BOOTSTRAP
from stream.errors import AccessRefused, TopicUnfit
from stream.events.cloudevents import ALERT_TYPE, PREDICTION_TYPE, Encoding, open_record
from stream.events.messages import DEFAULT_PREFIX, PredictionEvent, ShiftAlert
from stream.events.poison import Rejected
from stream.security import PLAINTEXT, KafkaSecurity

_POLL_MS: Final = 200
_CLOSE_MS: Final = 5_000
_METADATA_MS: Final = 5_000
E = TypeVar("E", PredictionEvent, ShiftAlert)


@dataclass(frozen=True, slots=True)
class Received(Generic[E]):
    """An event with its record's headers (timing, trace), time and position."""

    event: E
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int
    partition: int
    offset: int


class _Subscriber(Generic[E]):
    """Iterates over the events of one topic, oldest first within a partition.

    Without a `group` every partition is read from the end (`from_beginning`: from the start), and
    nothing written after the constructor returned is missed. With one, subscribers of that group
    share the partitions and continue where the group stopped: after a crash the events of the last
    seconds are repeated. Iteration ends after `timeout_s` without a record (None: never). Records
    that are not events of this type are skipped and counted in `skipped`.
    """

    _event: type[E]
    _event_type: str
    _suffix: str

    def __init__(
        self,
        bootstrap: str = DEFAULT_BOOTSTRAP,
        *,
        topic: str | None = None,
        group: str | None = None,
        from_beginning: bool = False,
        timeout_s: float | None = None,
        connect_timeout_s: float = 10.0,
        security: KafkaSecurity = PLAINTEXT,
    ) -> None:
        """Connect. Raises `BrokerUnreachable`, `AccessRefused` or `TopicMissing`, with the cure."""
        self._topic = topic or DEFAULT_PREFIX + self._suffix
        require_topic(bootstrap, self._topic, connect_timeout_s, security)
        self._bootstrap, self._security = bootstrap, security
        self._timeout_s = timeout_s
        self.skipped = 0
        self._decoders: dict[Encoding, Callable[[bytes], E]] = {
            "json": msgspec.json.Decoder(self._event).decode,
            "msgpack": msgspec.msgpack.Decoder(self._event).decode,
        }
        self._consumer: Any = kafka.KafkaConsumer(
            **client_arguments(bootstrap, security),
            group_id=group,
            auto_offset_reset="earliest" if from_beginning else "latest",
            enable_auto_commit=group is not None,
            allow_auto_create_topics=False,
            fetch_max_wait_ms=50,
            # A group leader that assigns before it knows the partitions assigns none, and tries
            # again only when its metadata is old: 5 minutes by default.
            metadata_max_age_ms=_METADATA_MS,
        )
        if group is None:
            self._assign_all(from_beginning)
        else:
            self._consumer.partitions_for_topic(self._topic)
            self._consumer.subscribe([self._topic])

    def _assign_all(self, from_beginning: bool) -> None:
        numbers = self._consumer.partitions_for_topic(self._topic) or set()
        partitions = [kafka.TopicPartition(self._topic, number) for number in sorted(numbers)]
        self._consumer.assign(partitions)
        seek = self._consumer.seek_to_beginning if from_beginning else self._consumer.seek_to_end
        seek(*partitions)
        for partition in partitions:
            self._consumer.position(partition)  # seeking is lazy: make "the end" mean now

    def __iter__(self) -> Iterator[E]:
        return (received.event for received in self.records())

    def records(self) -> Iterator[Received[E]]:
        """Iterate with headers and positions. Raises `TopicUnfit` or `AccessRefused`."""
        last = time.monotonic()
        while self._timeout_s is None or time.monotonic() - last < self._timeout_s:
            for record in self._poll():
                received = self._received(record)
                if received is not None:
                    yield received
                last = time.monotonic()

    def _poll(self) -> list[Any]:
        """Wait for records, a fifth of a second at most."""
        try:
            polled = self._consumer.poll(timeout_ms=_POLL_MS, max_records=500)
        except kafka.errors.KafkaError as error:
            if sentence := not_allowed(error, self._bootstrap, self._security):
                raise AccessRefused(sentence) from error
            if isinstance(error, kafka.errors.UnsupportedCodecError):
                raise TopicUnfit(
                    f"topic {self._topic} is compressed, and what reads that is not installed "
                    f"({error}): pip install 'kafka-python[lz4,snappy,zstd]'"
                ) from error
            raise TopicUnfit(
                f"topic {self._topic} cannot be read any further: {error}. If somebody wrote a "
                "record there that is none of ours, read on from the end (without from_beginning), "
                "or with a new group"
            ) from error
        return list(chain.from_iterable(polled.values()))

    def _received(self, record: Any) -> Received[E] | None:
        """Return the event of a record; None, counted, for a record of another kind."""
        with suppress(Rejected, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            envelope, data = open_record(record.headers, record.value or b"")
            if record.value is not None and envelope.type == self._event_type:
                event, headers = self._decoders[envelope.encoding](data), tuple(record.headers)
                return Received(event, headers, record.timestamp, record.partition, record.offset)
        self.skipped += 1
        return None

    def close(self) -> None:
        """Disconnect; with a group, commit what was read. Idempotent, never raises."""
        with suppress(Exception):  # what is not committed is read again
            self._consumer.close(timeout_ms=_CLOSE_MS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AlertSubscriber(_Subscriber[ShiftAlert]):
    """Iterates over shift alerts.

    with AlertSubscriber("127.0.0.1:9092", group="supervisor-desk") as alerts:
        for alert in alerts:
            notify(alert.conversation_id, alert.speaker_id, alert.from_, alert.to)
    """

    __doc__ = f"{__doc__}\n{_Subscriber.__doc__}"
    _event, _event_type, _suffix = ShiftAlert, ALERT_TYPE, "shift-alerts"


class PredictionSubscriber(_Subscriber[PredictionEvent]):
    """Iterates over predictions.

    with PredictionSubscriber("127.0.0.1:9092", from_beginning=True, timeout_s=5) as predictions:
        for prediction in predictions:
            print(prediction.speaker_id, prediction.emotion, prediction.confidence)
    """

    __doc__ = f"{__doc__}\n{_Subscriber.__doc__}"
    _event, _event_type, _suffix = PredictionEvent, PREDICTION_TYPE, "predictions"
