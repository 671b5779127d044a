"""The light client: publish utterances, watch predictions and alerts.

For programs that talk to emotrack: synchronous, typed, on kafka-python; brings no torch.

    from stream.client import AlertSubscriber, Publisher
    from stream.messages import Utterance

    with Publisher("127.0.0.1:9092") as publisher:
        publisher.publish(Utterance("call-7", "u1", "anna", text="Where is my order?"))

    with AlertSubscriber("127.0.0.1:9092", timeout_s=30) as alerts:
        for alert in alerts:
            print(alert.speaker_id, alert.from_, "->", alert.to)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar

import kafka
import kafka.errors
import msgspec

from stream.brokers import client_arguments, forbidden, not_allowed, require_topic
from stream.cloudevents import (
    ALERT_TYPE,
    CLIENT_SOURCE,
    PREDICTION_TYPE,
    UTTERANCE_TYPE,
    Encoding,
    event_headers,
    open_record,
)
from stream.errors import AccessRefused, InvalidUtterance, NotDelivered, TopicUnfit
from stream.messages import PredictionEvent, ShiftAlert, Utterance, check, encode
from stream.poison import MAX_VALUE_BYTES, Reason, Rejected
from stream.security import PLAINTEXT, KafkaSecurity

DEFAULT_BOOTSTRAP: Final = "127.0.0.1:9092"
DEFAULT_PREFIX: Final = "emotrack."
_POLL_MS: Final = 200
_METADATA_MS: Final = 5_000

E = TypeVar("E", PredictionEvent, ShiftAlert)


class Publisher:
    """Publishes utterances, keyed by conversation so that each conversation keeps its order.

    Delivery is idempotent (a retry is not a second record). `publish` hands over and returns; only
    `flush`, and leaving the context, wait until the broker has everything.
    """

    def __init__(
        self,
        bootstrap: str = DEFAULT_BOOTSTRAP,
        *,
        topic: str = DEFAULT_PREFIX + "utterances",
        encoding: Encoding = "msgpack",
        source: str = CLIENT_SOURCE,
        timeout_s: float = 10.0,
        linger_ms: int = 2,
        security: KafkaSecurity = PLAINTEXT,
    ) -> None:
        """Connect. Raises `BrokerUnreachable`, `AccessRefused` or `TopicMissing`, with the cure."""
        require_topic(bootstrap, topic, timeout_s, security)
        self._bootstrap, self._topic, self._encoding = bootstrap, topic, encoding
        self._source, self._timeout_s, self._security = source, timeout_s, security
        self._failure: BaseException | None = None
        self.sent = 0
        self.acknowledged = 0
        self._producer: Any = kafka.KafkaProducer(
            **client_arguments(bootstrap, security),
            linger_ms=linger_ms,
            max_block_ms=int(timeout_s * 1000),
            delivery_timeout_ms=max(int(timeout_s * 1000), 2000),
            request_timeout_ms=max(int(timeout_s * 1000) - linger_ms - 1, 1000),
            max_request_size=2 * MAX_VALUE_BYTES,
            allow_auto_create_topics=False,
        )

    def publish(
        self,
        utterance: Utterance,
        *,
        traceparent: str | None = None,
        encoding: Encoding | None = None,
    ) -> None:
        """Send one utterance; `traceparent` (W3C) is passed on to its prediction and alerts.

        Raises `InvalidUtterance` for what the worker would dead-letter (sizes of vectors excepted:
        only the model knows them), `NotDelivered` when an earlier one has failed or none gets out.
        """
        self._raise_failure()
        encoding = encoding or self._encoding
        value = _encoded(utterance, encoding)
        headers = event_headers(
            id=f"{utterance.conversation_id}/{utterance.utterance_id}",
            type=UTTERANCE_TYPE,
            source=self._source,
            encoding=encoding,
            traceparent=traceparent,
        )
        key = utterance.conversation_id.encode()
        try:
            future = self._producer.send(self._topic, key=key, value=value, headers=headers)
        except kafka.errors.KafkaError as error:
            raise self._not_delivered(error) from error
        self.sent += 1
        future.add_callback(self._acknowledge)
        future.add_errback(self._fail)

    def _acknowledge(self, _metadata: object) -> None:
        self.acknowledged += 1  # only ever on the sender's thread

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until the broker has everything. Raises `NotDelivered` when it has not."""
        try:
            self._producer.flush(timeout=self._timeout_s if timeout_s is None else timeout_s)
        except kafka.errors.KafkaError as error:
            raise self._not_delivered(error) from error
        self._raise_failure()

    def close(self) -> None:
        """Flush and disconnect; idempotent. Raises `NotDelivered`."""
        try:
            self.flush()
        finally:
            self._producer.close(timeout=1)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise self._not_delivered(failure) from failure

    def _not_delivered(self, error: BaseException) -> NotDelivered | AccessRefused:
        if forbidden(error):
            return AccessRefused(not_allowed(self._bootstrap, self._security, error))
        return NotDelivered(
            f"{self.acknowledged} of {self.sent} utterances are acknowledged by {self._bootstrap} "
            f"(topic {self._topic}): {error}. Check the broker and publish the rest again; "
            "the worker drops an utterance id that it has already seen"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:  # what is in flight may still go out, but must not hide the error
            self._producer.close(timeout=1)


@dataclass(frozen=True, slots=True)
class Received(Generic[E]):
    """An event with what its record says: timing and trace are in the headers."""

    event: E
    headers: tuple[tuple[str, bytes], ...]
    timestamp_ms: int
    partition: int
    offset: int


class _Subscriber(Generic[E]):
    """Iterates over the events of one topic, oldest first within a partition.

    Without a `group` every partition is read from the end (`from_beginning`: from the start), and
    nothing written after the constructor returned is missed. With one, subscribers of that group
    share the partitions and go on where the group stopped: after a crash the last seconds of events
    come again. Iteration ends when nothing came for `timeout_s` (None: never). Records that are not
    events of this type are skipped and counted in `skipped`.
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
            # A group leader that assigns before it has heard of the partitions assigns none, and
            # looks again only when its metadata is old: 5 minutes by default.
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
        for received in self.records():
            yield received.event

    def records(self) -> Iterator[Received[E]]:
        """Iterate with headers and positions. Raises `TopicUnfit` or `AccessRefused`."""
        last = time.monotonic()
        while self._timeout_s is None or time.monotonic() - last < self._timeout_s:
            for records in self._poll().values():
                for record in records:
                    received = self._received(record)
                    if received is not None:
                        yield received
                    last = time.monotonic()

    def _poll(self) -> dict[Any, list[Any]]:
        """Wait for records, a fifth of a second at most."""
        try:
            polled: dict[Any, list[Any]] = self._consumer.poll(timeout_ms=_POLL_MS, max_records=500)
        except kafka.errors.KafkaError as error:
            if forbidden(error):
                said = not_allowed(self._bootstrap, self._security, error)
                raise AccessRefused(said) from error
            raise TopicUnfit(
                f"topic {self._topic} cannot be read any further: {error}. If somebody wrote a "
                "record there that is none of ours, read on from the end (without from_beginning), "
                "or with a new group"
            ) from error
        return polled

    def _received(self, record: Any) -> Received[E] | None:
        try:
            envelope, data = open_record(record.headers, record.value or b"")
            if record.value is None or envelope.type != self._event_type:
                self.skipped += 1
                return None
            event = self._decoders[envelope.encoding](data)
        except (Rejected, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.skipped += 1
            return None
        return Received(
            event, tuple(record.headers), record.timestamp, record.partition, record.offset
        )

    def close(self) -> None:
        """Disconnect; with a group, commit what was read. Idempotent."""
        self._consumer.close()

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


def _encoded(utterance: Utterance, encoding: Encoding) -> bytes:
    try:
        check(utterance, {})
    except Rejected as met:
        raise InvalidUtterance(met.poison.reason, met.poison.sentence) from None
    value = encode(utterance, encoding)
    if len(value) > MAX_VALUE_BYTES:
        raise InvalidUtterance(
            Reason.TOO_LARGE,
            f"utterance {utterance.utterance_id} has {len(value)} bytes, more than "
            f"{MAX_VALUE_BYTES}: send vectors as float16, or the text in several utterances",
        )
    return value
