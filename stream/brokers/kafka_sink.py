"""The worker's producers, on confluent-kafka: idempotent, or `delivery: transactional`."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from stream.brokers.broker_faults import Act, codes_that, kind_of
from stream.brokers.kafka_config import (
    close_quietly,
    code_of,
    create_client,
    producer_config,
    text_of,
)
from stream.brokers.kafka_source import NOT_OURS, KafkaSource
from stream.ports import CommitRefused, DeliveryFailed, LogUnavailable, Outgoing, OutputRefused
from stream.settings import Settings

TIMEOUT_MS: Final = 6_000  # then the broker ends a killed worker's open transaction
CALL_S: Final = 15.0
RETRIES: Final = 2  # of a call that the broker calls retriable


RENEWED: Final = codes_that(Act.RENEW)
REFUSED: Final = (
    codes_that(Act.HOLD)
    | frozenset(kind_of(KafkaError.TOPIC_AUTHORIZATION_FAILED).codes)
    | frozenset(kind_of(KafkaError.UNKNOWN_TOPIC_OR_PART).codes)
)
VAGUE: Final = frozenset(  # what a deleted topic looks like inside a transaction
    {KafkaError._TIMED_OUT, KafkaError._MSG_TIMED_OUT, KafkaError._INCONSISTENT}
)
LOOK_S: Final = 2.0


class Failure(NamedTuple):
    """A record that was not delivered."""

    topic: str
    error: KafkaError

    @property
    def refused(self) -> bool:
        """True where the broker will not take it, however often it is sent."""
        return self.error.code() in REFUSED

    def __str__(self) -> str:
        says = kind_of(self.error.code()).says
        return f"topic {self.topic}: {self.error.str()}{': ' if says else ''}{says}"


class KafkaSink:
    """The worker's producer; a fatally broken one is replaced by a fresh one."""

    def __init__(self, settings: Settings) -> None:
        self._config = producer_config(settings)
        self._failures: list[Failure] = []
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
                    self._failures.append(Failure(r.topic, error.args[0]))
                    break

    def flush(self, timeout_s: float) -> bool:
        until = time.monotonic() + timeout_s
        while self._producer.flush(max(0.0, until - time.monotonic())):
            if time.monotonic() >= until:
                return False
        failures, self._failures = self._failures, []
        if not failures:
            return True
        if any(f.error.fatal() or f.error.code() in RENEWED for f in failures):
            self._producer = self._new_producer()
        refused = next((f for f in failures if f.refused), None)
        text = f"not delivered: {refused or failures[0]}"  # no number: it is one fact in the log
        raise OutputRefused(text) if refused else DeliveryFailed(text)

    def close(self) -> None:
        close_quietly(self._producer.purge)
        close_quietly(lambda: self._producer.flush(0))

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(Failure(message.topic() or "", error))


class KafkaTransactions(KafkaSink):
    """`Transactions` (KIP-447) of one member of the workers' group, on a producer of its own.

    A reader with `isolation.level=read_committed` sees each answer once; any other sees also what
    was aborted. Each process has a transactional id of its own; a zombie is refused by the group's
    generation, which every transaction carries.
    """

    def __init__(self, settings: Settings, source: KafkaSource) -> None:
        self._source = source
        self._ready = False
        self._refused: Failure | None = None  # of the open transaction
        super().__init__(settings)

    def _new_producer(self) -> Producer:
        self._ready = False
        own = {
            "transactional.id": f"emotrack-{uuid.uuid4()}",
            "transaction.timeout.ms": TIMEOUT_MS,
            "delivery.timeout.ms": min(self._config["delivery.timeout.ms"], TIMEOUT_MS),
        }
        return create_client(Producer, {**self._config, **own})

    def commit(
        self, records: Sequence[Outgoing], offsets: Mapping[int, int], notes: Mapping[int, str]
    ) -> None:
        wanted = self._source.positions(offsets, notes)
        try:
            if not self._ready:
                self._try(lambda: self._producer.init_transactions(CALL_S))
                self._ready = True
            self._producer.begin_transaction()
            self._queue(records)
            self._try(
                lambda: self._producer.send_offsets_to_transaction(
                    wanted, self._source.membership, CALL_S
                )
            )
            self._try(lambda: self._producer.commit_transaction(CALL_S))
        except KafkaException as error:
            self._abort(error, {r.topic for r in records})

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        """Note what is refused; a commit covers all its records, an abort's reports come later."""
        if error is not None and (met := Failure(message.topic() or "", error)).refused:
            self._refused = met

    def _queue(self, records: Sequence[Outgoing]) -> None:
        """Raise `KafkaException` where a record cannot even be queued: a commit would lose it."""
        self.produce(records)
        if self._failures:
            raise KafkaException(self._failures[0].error)

    def _try(self, call: Callable[[], Any]) -> None:
        """Call again while the broker says that it may be called again."""
        for attempt in range(RETRIES + 1):
            try:
                call()
            except KafkaException as error:
                inner = error.args[0]
                retriable = isinstance(inner, KafkaError) and inner.retriable()
                if not retriable or attempt == RETRIES:
                    raise
            else:
                return

    def _abort(self, error: KafkaException, topics: Collection[str]) -> None:
        """Abort the transaction and raise its fault; replace a producer that cannot continue."""
        refused = next((f for f in self._failures if f.refused), self._refused)
        self._failures, self._refused = [], None
        inner = error.args[0]
        if refused is None and code_of(error) in REFUSED:
            refused = Failure("(see there)", inner)
        try:
            if isinstance(inner, KafkaError) and inner.fatal():
                raise error
            self._producer.abort_transaction(CALL_S)
        except KafkaException:
            self._producer = self._new_producer()
        if code_of(error) in NOT_OURS:
            raise CommitRefused(text_of(error)) from None
        if refused is None and code_of(error) in VAGUE:
            refused = self._missing(topics)
        if refused is not None:
            raise OutputRefused(f"the transaction was aborted: {refused}") from None
        raise LogUnavailable(f"the transaction was aborted: {text_of(error)}") from None

    def _missing(self, topics: Collection[str]) -> Failure | None:
        """Return one of these topics that is not there; None also where no broker answers."""
        try:
            # All topics are listed: to ask for one may create it.
            known = self._producer.list_topics(timeout=LOOK_S).topics
        except KafkaException:
            return None
        missing = sorted(set(topics) - set(known))
        return (
            Failure(missing[0], KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)) if missing else None
        )
