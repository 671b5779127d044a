"""Publish utterances: synchronous, idempotent, on kafka-python."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Self

import kafka
import kafka.errors

from stream.brokers.kafka_admin import client_arguments, not_allowed, require_topic
from stream.errors import AccessRefused, InvalidUtterance, NotDelivered
from stream.events.cloudevents import CLIENT_SOURCE, UTTERANCE_TYPE, Encoding, event_headers
from stream.events.decode import check
from stream.events.messages import DEFAULT_PREFIX, FlaggedUtterance, Utterance, encode
from stream.events.poison import MAX_VALUE_BYTES, Reason, Rejected
from stream.security import PLAINTEXT, KafkaSecurity

REPEATS: Final = (
    "a worker answers no id twice that is among the last 256 of its conversation, until that is "
    "silent for IDLE_S (15 minutes)"
)
DEFAULT_BOOTSTRAP: Final = "127.0.0.1:9092"


class Publisher:
    """Publishes utterances, keyed by conversation so that each conversation keeps its order.

    Delivery is idempotent (a retry is not a second record). `publish` returns at once; only `flush`
    and the end of the context wait until the broker has everything.
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
        delivered: Callable[[Utterance, int, int], None] | None = None,
    ) -> None:
        """Connect; `delivered` gets each utterance with its partition and offset, on a thread.

        Raises `BrokerUnreachable`, `AccessRefused` or `TopicMissing`, with the cure.
        """
        require_topic(bootstrap, topic, timeout_s, security)
        self._bootstrap, self._topic, self._encoding = bootstrap, topic, encoding
        self._source, self._timeout_s, self._security = source, timeout_s, security
        self._delivered = delivered
        self._failure: BaseException | None = None
        self._closed = False
        self._number = 0
        self._waiting: dict[int, Utterance] = {}  # by number: not acknowledged yet
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

        Raises `InvalidUtterance` for one that the worker would dead-letter (sizes of vectors
        excepted: only the model knows them), `NotDelivered` if an earlier one failed or the
        producer's buffer stays full: then this one is among the `unacknowledged`.
        """
        encoding = encoding or self._encoding
        value = _encoded(utterance, encoding)
        self._number += 1
        number, self._waiting[self._number] = self._number, utterance
        self._raise_failure()
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
        future.add_callback(self._acknowledge, number, utterance)
        future.add_errback(self._fail)

    @property
    def unacknowledged(self) -> dict[int, Utterance]:
        """The utterances published and not acknowledged, by number from 1 on, in order.

        Final once the publisher is closed: until then the broker may still take some of it.
        """
        return dict(self._waiting)

    def _acknowledge(self, number: int, utterance: Utterance, metadata: Any) -> None:
        self._waiting.pop(number, None)
        if self._delivered is not None:
            self._delivered(utterance, metadata.partition, metadata.offset)
        self.acknowledged += 1  # only ever on the sender's thread

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait until the broker has everything. Raises `NotDelivered` if it has not in time."""
        try:
            self._producer.flush(timeout=self._timeout_s if timeout_s is None else timeout_s)
        except kafka.errors.KafkaError as error:
            raise self._not_delivered(error) from error
        self._raise_failure()

    def close(self) -> None:
        """Flush and disconnect; idempotent. Raises `NotDelivered` or `AccessRefused`, once."""
        if self._closed:
            return
        self._closed = True
        try:
            self.flush()
        finally:
            self._disconnect()

    def _disconnect(self) -> None:
        with suppress(Exception):  # what was not sent has been told, or another error is on its way
            self._producer.close(timeout=1)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise self._not_delivered(failure) from failure

    def _not_delivered(self, error: BaseException) -> NotDelivered | AccessRefused:
        if sentence := not_allowed(error, self._bootstrap, self._security):
            return AccessRefused(sentence)
        first = next(iter(sorted(self.unacknowledged.items())), None)
        return NotDelivered(
            f"{self.acknowledged} of {self.sent} utterances are acknowledged by {self._bootstrap} "
            f"(topic {self._topic}): {error}. {first_of(first)}Check the broker and publish the "
            f"rest again; {REPEATS}"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:  # records in flight may still be sent, but a failure there must not hide the error
            self._closed = True
            self._disconnect()


def first_of(first: tuple[int, Utterance] | None) -> str:
    """Return a sentence that names the first utterance without an acknowledgement, if any."""
    if first is None:
        return ""
    number, utterance = first
    return (
        f"The first without is utterance {number} ({utterance.utterance_id!r} of "
        f"{utterance.conversation_id!r}). "
    )


def _encoded(utterance: Utterance, encoding: Encoding) -> bytes:
    if isinstance(utterance, FlaggedUtterance):
        utterance = utterance.plain()
    try:
        check(utterance, {})
    except Rejected as error:
        raise InvalidUtterance(error.poison.reason, error.poison.sentence) from None
    value = encode(utterance, encoding)
    if len(value) > MAX_VALUE_BYTES:
        raise InvalidUtterance(
            Reason.TOO_LARGE,
            f"utterance {utterance.utterance_id} has {len(value)} bytes, more than "
            f"{MAX_VALUE_BYTES}: send vectors as float16, or the text in several utterances",
        )
    return value
