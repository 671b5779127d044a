"""Kafka on confluent-kafka: the worker's group member and its idempotent producer.

One thread owns each. Assignments are incremental in both group protocols (KIP-848, or classic with
cooperative-sticky). librdkafka's mock cluster works too, with `mock_broker`: it has no admin API,
so there is no topic id to be had.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from confluent_kafka import (
    OFFSET_END,
    OFFSET_INVALID,
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient

from stream.errors import BrokerUnreachable, ConfigError, TopicMissing
from stream.kafka_rights import require_rights
from stream.ports import (
    NO_TIMESTAMP,
    Assignments,
    CommitRefused,
    DeliveryFailed,
    Headers,
    LogUnavailable,
    Outgoing,
    Record,
    Start,
)
from stream.settings import Settings

Answer = TypeVar("Answer")
Client = TypeVar("Client", AdminClient, Consumer, Producer)
NO_TOPIC_ID: Final = "00000000-0000-0000-0000-000000000000"
CALL_S: Final = 10.0  # a call that answers later than this counts as failed
BACKOFF_S: Final = 0.1
ASK_S: Final = 0.2  # what a look at the ends of paused partitions may take
REACH_S: Final = 5.0  # the same for the first one, while somebody waits for the worker to start
MOCK_FETCH_WAIT_MS: Final = 10  # the mock cluster answers a fetch only when its wait is over
LARGEST_OUTPUT: Final = 2 << 20  # a dead letter holds an oversize-by-headers record whole
UNREADABLE_HEADERS: Final[Headers] = (("ce_unreadable", None),)
NOT_OURS: Final = frozenset(
    (
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError.STALE_MEMBER_EPOCH,
        KafkaError.FENCED_MEMBER_EPOCH,
        KafkaError.FENCED_INSTANCE_ID,
        KafkaError._ASSIGNMENT_LOST,
        KafkaError._STATE,
    )
)
HOPELESS: Final = frozenset(
    (
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.UNSUPPORTED_VERSION,
        KafkaError._UNSUPPORTED_FEATURE,
        KafkaError._FATAL,
    )
)


def connection(settings: Settings) -> dict[str, Any]:
    """What every client of ours needs; `kafka_options` may add more."""
    return {
        "bootstrap.servers": settings.bootstrap,
        "client.id": "emotrack",
        "log_level": 2,  # what matters is raised, or seen by `reachable`
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 2_000,
        **settings.security.librdkafka(),
        **settings.kafka_options,
    }


def consumer_config(settings: Settings) -> dict[str, Any]:
    """The worker's consumer: manual commits, bounded fetch queue, small waits."""
    classic = settings.group_protocol == "classic" or (
        settings.group_protocol == "auto" and settings.mock_broker
    )
    group: dict[str, Any] = (
        {
            "group.protocol": "classic",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": settings.session_timeout_ms,
            "heartbeat.interval.ms": max(1, settings.session_timeout_ms // 4),
        }
        if classic
        else {"group.protocol": "consumer"}
    )
    wait_ms = MOCK_FETCH_WAIT_MS if settings.mock_broker else settings.fetch_max_wait_ms
    return {
        **group,
        "group.id": settings.group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "allow.auto.create.topics": settings.mock_broker,
        "max.poll.interval.ms": settings.max_poll_interval_ms,
        "fetch.wait.max.ms": wait_ms,
        "fetch.queue.backoff.ms": 10,  # 1 s by default: a full queue would stall for that long
        "queued.min.messages": 10_000,
        "queued.max.messages.kbytes": 32_768,
        **connection(settings),
    }


def producer_config(settings: Settings) -> dict[str, Any]:
    """The worker's producer: idempotent, sent at once, partitioned as Java and kafka-python do."""
    return {
        "enable.idempotence": True,
        "linger.ms": 0,
        "partitioner": "murmur2_random",
        "delivery.timeout.ms": settings.delivery_timeout_ms,
        "message.max.bytes": LARGEST_OUTPUT,
        **connection(settings),
    }


def find_topic_id(settings: Settings) -> str:
    """The id of the utterances topic; the zero UUID on the mock cluster.

    Raises `BrokerUnreachable` or `TopicMissing`; `AccessRefused` where the worker may not do its
    work.
    """
    topic = settings.utterances
    admin = made(AdminClient, connection(settings))
    try:
        if settings.mock_broker:
            admin.list_topics(timeout=REACH_S)
            return NO_TOPIC_ID
        require_rights(settings, admin, REACH_S)
        asked = admin.describe_topics(TopicCollection([topic]), request_timeout=REACH_S)
        return str(asked[topic].result(REACH_S).topic_id)
    except (KafkaException, TimeoutError) as error:
        if code_of(error) == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicMissing(
                f"topic {topic} does not exist: create it with `emotrack topics create`"
            ) from None
        raise BrokerUnreachable(
            f"no Kafka broker answers at {settings.bootstrap} ({said(error)}): start one, or set "
            "EMOTRACK_BOOTSTRAP"
        ) from None


def made(client: Callable[[dict[str, Any]], Client], config: dict[str, Any]) -> Client:
    """Make a client. Raises `ConfigError` for an option librdkafka does not take."""
    try:
        return client(config)
    except KafkaException as error:
        raise ConfigError(
            f"Kafka refuses a setting ({said(error)}): see EMOTRACK_KAFKA_OPTIONS"
        ) from None


def patiently(ask: Callable[[], Answer], what: str) -> Answer:
    """Ask until there is an answer: right after a start or a failover, brokers refuse for a while.

    Raises `LogUnavailable` after `CALL_S` of refusals.
    """
    until = time.monotonic() + CALL_S
    while True:
        try:
            return ask()
        except KafkaException as error:
            if time.monotonic() >= until:
                raise LogUnavailable(f"{what}: {said(error)}") from None
            time.sleep(BACKOFF_S)


def code_of(error: Exception) -> int | None:
    """librdkafka's code of an exception, if it has one."""
    inner = error.args[0] if error.args else None
    return inner.code() if isinstance(inner, KafkaError) else None


def said(error: Exception) -> str:
    """What an exception of librdkafka says, for people."""
    inner = error.args[0] if error.args else None
    return inner.str() if isinstance(inner, KafkaError) else str(error) or type(error).__name__


class Lookup:
    """Asks where the utterances topic's partitions begin and end. Connects on first use.

    By a client of its own that never fetches: a broker answers a connection's requests in turn, so
    a question waits behind a fetch for as long as that waits for records (half a second).
    Methods raise `KafkaException` where there is no answer in time.
    """

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.utterances
        group = f"{settings.group}.lookup"  # librdkafka wants one; it is never joined
        self._config = {"group.id": group, **connection(settings)}
        self._opened: Consumer | None = None

    @property
    def _client(self) -> Consumer:
        if self._opened is None:
            self._opened = made(Consumer, self._config)
        return self._opened

    def first(self, partition: int, timeout_s: float) -> int:
        """The first offset still in the log."""
        at = TopicPartition(self._topic, partition)
        low, _ = self._client.get_watermark_offsets(at, timeout=timeout_s)
        return low

    def ends(self, partitions: Sequence[int], timeout_s: float) -> Mapping[int, int]:
        """The offsets after the last records, of all partitions in one request."""
        asked = [TopicPartition(self._topic, p, OFFSET_END) for p in partitions]
        found = self._client.offsets_for_times(asked, timeout=timeout_s)
        return {at.partition: at.offset for at in found}

    def at(self, partition: int, time_ms: int, timeout_s: float) -> int:
        """The first offset of this time or later; the log's end if there is none."""
        asked = [TopicPartition(self._topic, partition, max(0, time_ms))]
        (found,) = self._client.offsets_for_times(asked, timeout=timeout_s)
        return found.offset if found.offset >= 0 else self.ends([partition], timeout_s)[partition]

    def close(self) -> None:
        """Release the connection; idempotent."""
        if self._opened is not None:
            self._opened.close()


class KafkaSource:
    """One member of the workers' group, reading the utterances topic."""

    def __init__(self, settings: Settings, topic_id: str) -> None:
        self._topic, self._topic_id = settings.utterances, topic_id
        self._protocol = settings.group_protocol
        self._reachable = True
        self._owned: dict[int, int] = {}  # partition -> where its reading began
        self._paused: set[int] = set()
        self._lookup = Lookup(settings)
        self._listener: Assignments | None = None
        # librdkafka calls `_met` from within `poll`.
        self._consumer = made(Consumer, {**consumer_config(settings), "error_cb": self._met})

    @property
    def topic_id(self) -> str:
        return self._topic_id

    def subscribe(self, assignments: Assignments) -> None:
        self._listener = assignments
        self._consumer.subscribe(
            [self._topic],
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._lost,
        )

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        # `consume(n, t)` waits for n messages or t: only `poll` returns with the first one.
        first = self._consumer.poll(timeout_s)
        if first is None:
            return []
        rest = self._consumer.consume(max_records - 1, 0.0) if max_records > 1 else []
        records = [r for m in (first, *rest) if (r := self._record(m)) is not None]
        # A partition may have left between the two calls: what was read of it is not ours.
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
            raise LogUnavailable(f"cannot seek partition {partition}: {said(error)}") from None

    def commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> None:
        wanted = [TopicPartition(self._topic, p, o, notes[p]) for p, o in offsets.items()]
        try:
            answers = self._consumer.commit(offsets=wanted, asynchronous=False)
        except KafkaException as error:
            raise self._commit_failed(code_of(error), said(error)) from None
        for answer in answers:
            if answer.error is not None:
                raise self._commit_failed(answer.error.code(), answer.error.str())
        self._reachable = True

    @property
    def membership(self) -> object:
        """What tells a broker that a transaction comes from this member, as the group is now."""
        return self._consumer.consumer_group_metadata()

    def lag(self) -> Mapping[int, int]:
        ends = self._ends_of_paused()
        lags: dict[int, int] = {}
        for at in self._consumer.position([TopicPartition(self._topic, p) for p in self._owned]):
            _, high = self._consumer.get_watermark_offsets(at, cached=True)
            position = at.offset if at.offset >= 0 else self._owned[at.partition]
            end = max(high, ends.get(at.partition, -1))
            if end >= 0:
                lags[at.partition] = max(0, end - position)
        return lags

    def _ends_of_paused(self) -> Mapping[int, int]:
        """Ask for ends that no fetch would tell; none where nobody answers within `ASK_S`."""
        if not self._paused or not self._reachable:
            return {}
        try:
            return self._lookup.ends(sorted(self._paused), ASK_S)
        except KafkaException:
            return {}

    def reachable(self) -> bool:
        if not self._reachable:  # idle, nothing else would tell that the broker is back
            try:
                self._consumer.list_topics(self._topic, timeout=1.0)
                self._reachable = True
            except KafkaException:
                return False
        return True

    def close(self) -> None:
        self._consumer.close()
        self._lookup.close()

    def _record(self, message: Message) -> Record | None:
        """One message as a record; None for an event that needs no answer."""
        error = message.error()
        if error is not None:
            self._met(error)
            return None
        self._reachable = True
        return record_of(message, self._topic)

    def _met(self, error: KafkaError) -> None:
        """An error event: transport faults heal, what cannot heal is raised into `poll`."""
        if error.code() in (KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT):
            self._reachable = False
        elif error.fatal() or error.code() in HOPELESS:
            hint = ""
            if error.code() in (KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE):
                hint = ": a broker before Kafka 4 needs EMOTRACK_GROUP_PROTOCOL=classic"
            raise LogUnavailable(f"{error.str()}{hint}")

    def _commit_failed(self, code: int | None, text: str) -> CommitRefused | LogUnavailable:
        if code in NOT_OURS:
            return CommitRefused(text)
        self._reachable = False
        return LogUnavailable(f"offsets were not committed: {text}")

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        assert self._listener is not None
        starts = {at.partition: self._start(at) for at in self._committed(partitions)}
        consumer.incremental_assign(partitions)
        self._owned.update({p: max(start.committed, start.low) for p, start in starts.items()})
        self._listener.assigned(starts)

    def _committed(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        return patiently(
            lambda: self._consumer.committed(partitions, timeout=CALL_S),
            "the group's offsets cannot be read",
        )

    def _start(self, at: TopicPartition) -> Start:
        low = patiently(
            lambda: self._lookup.first(at.partition, CALL_S), "the log's start cannot be read"
        )
        return Start(-1 if at.offset == OFFSET_INVALID else at.offset, low, at.metadata or "")

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        assert self._listener is not None
        gone = [p.partition for p in partitions]
        self._listener.revoked(gone)
        self._leave(consumer, partitions)

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        assert self._listener is not None
        self._listener.lost([p.partition for p in partitions])
        self._leave(consumer, partitions)

    def _leave(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for p in partitions:
            self._owned.pop(p.partition, None)
            self._paused.discard(p.partition)
        consumer.incremental_unassign(partitions)


def record_of(message: Message, topic: str) -> Record:
    """A message that is no error, as a record."""
    kind, time_ms = message.timestamp()
    partition, offset = message.partition(), message.offset()
    assert partition is not None and offset is not None
    return Record(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp_ms=NO_TIMESTAMP if kind == TIMESTAMP_NOT_AVAILABLE else time_ms,
        key=message.key(),
        value=message.value(),
        headers=headers_of(message),
    )


def headers_of(message: Message) -> Headers:
    """The headers as sent; a header name that is no UTF-8 makes all of them unreadable."""
    try:
        headers: Any = message.headers()  # (name, bytes or None) pairs, whatever the stub says
    except UnicodeDecodeError:
        return UNREADABLE_HEADERS
    if not headers:
        return ()
    return tuple(headers)


class KafkaSink:
    """The worker's producer; a fatally broken one is replaced by a fresh one."""

    def __init__(self, settings: Settings) -> None:
        self._config = producer_config(settings)
        self._failures: list[KafkaError] = []
        self._producer = self._made()

    def _made(self) -> Producer:
        return made(Producer, self._config)

    def produce(self, records: Sequence[Outgoing]) -> None:
        for r in records:
            headers: Any = list(r.headers)
            while True:
                try:
                    self._producer.produce(
                        r.topic, r.value, r.key, headers=headers, on_delivery=self._delivered
                    )
                    break
                except BufferError:  # the bounded queue is full: let it drain, then go on
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
            self._producer = self._made()
        raise DeliveryFailed(f"{len(failures)} records were not delivered: {failures[0].str()}")

    def close(self) -> None:
        self._producer.purge()
        self._producer.flush(0)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failures.append(error)
