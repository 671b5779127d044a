"""The worker's group member, on confluent-kafka; one thread owns it.

Assignments are incremental in both group protocols (KIP-848, or classic with cooperative-sticky).
librdkafka's mock cluster works too, with `mock_broker`: it has no admin API, hence no topic id.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import structlog
from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from stream.brokers.broker_faults import Act, cause_of, codes_that, kind_of
from stream.brokers.kafka_config import (
    CALL_S,
    NO_TOPIC_ID,
    Lookup,
    close_quietly,
    code_of,
    consumer_config,
    create_client,
    retry,
    text_of,
)
from stream.brokers.kafka_watch import GONE, KafkaWatch, Tell
from stream.errors import AccessRefused
from stream.ports import (
    NO_TIMESTAMP,
    Assignments,
    CommitRefused,
    Headers,
    LogUnavailable,
    Record,
    Start,
    TopicChanged,
)
from stream.settings import Settings

log = structlog.get_logger()
MISSING_S: Final = 5.0  # a broker that has just started may not know the topic yet
ENDS_S: Final = 0.2  # limit of a request for the ends of paused partitions
Notify = Callable[[Sequence[int]], None]
OF_TOPIC: Final = " of topic "  # in a committed note, before the topic's id
UNREADABLE_HEADERS: Final[Headers] = (("ce_unreadable", None),)
NOT_OURS: Final = codes_that(Act.AGAIN) | {KafkaError.FENCED_INSTANCE_ID}
DENIED: Final = frozenset(kind_of(KafkaError.TOPIC_AUTHORIZATION_FAILED).codes)
AWAY: Final = frozenset(
    code
    for met in (
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._SSL,
        KafkaError._AUTHENTICATION,
    )
    for code in kind_of(met).codes
)


class KafkaSource:
    """One member of the workers' group, reading the utterances topic."""

    def __init__(self, settings: Settings, topic_id: str) -> None:
        self._topic, self.topic_id = settings.topics.utterances, topic_id
        self._bootstrap = settings.bootstrap
        self._closed = False
        self._faulted_at = 0.0  # the last commit that was not answered
        self._owned: dict[int, int] = {}  # partition -> where its reading began, or was sought to
        self._paused: set[int] = set()
        self._lookup, self._watch = Lookup(settings), KafkaWatch(settings)
        # librdkafka calls `_on_error` from within `poll`.
        self._consumer = create_client(
            Consumer, {**consumer_config(settings), "error_cb": self._on_error}
        )

    def watch(self, tell: Tell) -> None:
        self._watch.start(tell)

    def subscribe(self, assignments: Assignments) -> None:
        self._consumer.subscribe(
            [self._topic],
            on_assign=partial(self._assign, assignments),
            on_revoke=partial(self._leave, assignments.revoked),
            on_lost=partial(self._leave, assignments.lost),
        )

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        # `consume(n, t)` waits for n messages or t: only `poll` returns with the first one.
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        rest = self._consumer.consume(max_records - 1, 0.0) if max_records > 1 else []
        records = []
        for message in (first, *rest):
            if (error := message.error()) is not None:
                self._on_error(error)
            else:
                records.append(record_of(message, self._topic))
        # A partition may be revoked between the two calls: its records are not ours.
        return [r for r in records if r.partition in self._owned]

    def pause(self, partitions: Sequence[int]) -> None:
        self._consumer.pause([TopicPartition(self._topic, p) for p in partitions])
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[int]) -> None:
        self._consumer.resume([TopicPartition(self._topic, p) for p in partitions])
        self._paused.difference_update(partitions)

    def seek(self, partition: int, offset: int) -> None:
        try:
            self._consumer.seek(TopicPartition(self._topic, partition, offset))
        except KafkaException as error:
            raise LogUnavailable(f"cannot seek partition {partition}: {text_of(error)}") from None
        self._owned[partition] = offset  # its position is not known before it is read again

    def commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> None:
        try:
            answers = self._consumer.commit(
                offsets=self.positions(offsets, notes), asynchronous=False
            )
        except KafkaException as error:
            raise self._commit_failed(code_of(error), text_of(error)) from None
        for answer in answers:
            if answer.error is not None:
                raise self._commit_failed(answer.error.code(), answer.error.str())
        self._faulted_at = 0.0

    def positions(
        self, offsets: Mapping[int, int], notes: Mapping[int, str]
    ) -> list[TopicPartition]:
        """Return offsets to commit with their notes, which also name the topic's id.

        A group's offsets are stored by the topic's name: a commit that is late survives the
        topic, and would hide the first records of another one made under its name.
        """
        return [
            TopicPartition(self._topic, p, offset, f"{notes[p]}{OF_TOPIC}{self.topic_id}")
            for p, offset in offsets.items()
        ]

    @property
    def membership(self) -> object:
        """The group metadata that shows a broker which member a transaction comes from."""
        return self._consumer.consumer_group_metadata()

    def lag(self) -> Mapping[int, int]:
        # No fetch reports the ends of paused partitions, and a quota delays every fetch.
        ends = dict(self._watch.known_ends)
        if self._paused and self._watch.up:
            with suppress(KafkaException):  # no broker answers in `ENDS_S`
                ends |= self._lookup.ends(sorted(self._paused), ENDS_S)
        lags: dict[int, int] = {}
        for at in self._consumer.position([TopicPartition(self._topic, p) for p in self._owned]):
            _, high = self._consumer.get_watermark_offsets(at, cached=True)
            position = at.offset if at.offset >= 0 else self._owned[at.partition]
            end = max(high, ends.get(at.partition, -1))
            if end >= 0:
                lags[at.partition] = max(0, end - position)
        return lags

    def reachable(self) -> bool:
        # A group that reads nothing is not told that its topic is gone.
        if not self._owned and self._watch.missing_s > MISSING_S:
            raise self._deleted()
        return self._watch.up and self._watch.answered_at >= self._faulted_at

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            close_quietly(self._consumer.close)
            self._lookup.close()
            self._watch.close()

    def _deleted(self) -> TopicChanged:
        return TopicChanged(
            f"topic {self._topic} was deleted under this worker: create it with `emotrack topics "
            f"create --bootstrap {self._bootstrap}` and start the worker again"
        )

    def _on_error(self, error: KafkaError) -> None:
        """Log what may heal; raise what cannot heal out of `poll`."""
        code = cause_of(error)
        kind = kind_of(code)
        if code in GONE:
            raise self._deleted()
        # A client that says so reads and commits nothing any more, whatever is cured meanwhile.
        broken = error.fatal() or error.code() == KafkaError._FATAL
        if broken or kind.act is Act.END:
            text = f"{error.str()}: {kind.says}" if kind.says else error.str()
            if code in DENIED:
                raise AccessRefused(f"Kafka at {self._bootstrap}: {text}")
            raise LogUnavailable(text)
        if error.code() in AWAY:
            self._watch.soon()
        name, cure = error.name(), kind.says or None
        log.warning("Kafka reports a fault", per="code", code=name, reason=error.str(), cure=cure)

    def _commit_failed(self, code: int | None, text: str) -> CommitRefused | LogUnavailable:
        if code in NOT_OURS:
            return CommitRefused(text)
        self._faulted_at = time.monotonic()
        self._watch.soon()
        return LogUnavailable(f"offsets were not committed: {text}")

    def _assign(self, to: Assignments, consumer: Consumer, at: list[TopicPartition]) -> None:
        if at and self.topic_id != NO_TOPIC_ID and self._lookup.topic_id() != self.topic_id:
            raise TopicChanged(
                f"topic {self._topic} was deleted and created again under this worker: what it "
                "knows of conversations is of the old one. Start the worker again"
            )
        committed = retry(
            lambda: consumer.committed(at, timeout=CALL_S),
            "the group's offsets cannot be read",
        )
        starts = {p.partition: self._start(p) for p in committed}
        consumer.incremental_assign(
            [
                TopicPartition(p.topic, p.partition, starts[p.partition].low)
                if starts[p.partition].committed < 0
                else p
                for p in at
            ]
        )
        self._owned.update({p: max(start.committed, start.low) for p, start in starts.items()})
        to.assigned(starts)

    def _start(self, committed: TopicPartition) -> Start:
        """Return where the reading of a partition begins; an offset of another topic is none."""
        low = self._lookup.first(committed.partition)
        note, _, of_topic = (committed.metadata or "").partition(OF_TOPIC)
        if of_topic not in ("", self.topic_id):
            log.warning(
                "the offset is of another topic of this name: reading from the first record",
                partition=committed.partition,
                offset=committed.offset,
            )
            return Start(-1, low)
        return Start(max(-1, committed.offset), low, note)  # negative where there is none

    def _leave(self, notify: Notify, consumer: Consumer, at: list[TopicPartition]) -> None:
        partitions = [p.partition for p in at]
        notify(partitions)
        for p in partitions:
            self._owned.pop(p, None)
            self._paused.discard(p)
        consumer.incremental_unassign(at)


def record_of(message: Message, topic: str) -> Record:
    """Return a message that is no error, as a record."""
    kind, time_ms = message.timestamp()
    partition, offset = message.partition(), message.offset()
    assert partition is not None and offset is not None
    try:
        headers: Any = message.headers()  # (name, bytes or None) pairs, though the stub differs
    except UnicodeDecodeError:  # one header name that is no UTF-8 makes all of them unreadable
        headers = UNREADABLE_HEADERS
    return Record(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp_ms=NO_TIMESTAMP if kind == TIMESTAMP_NOT_AVAILABLE else time_ms,
        key=message.key(),
        value=message.value(),
        headers=tuple(headers or ()),
    )
