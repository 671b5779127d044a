"""Options, rights and errors of confluent-kafka's clients; look-ups of topic ids and offsets."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, TypeVar

import structlog
from confluent_kafka import (
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AclOperation, AdminClient  # type: ignore[attr-defined]  # public, not re-exported

from stream.brokers.takeover import classic_heartbeat_ms
from stream.errors import AccessRefused, BrokerUnreachable, ConfigError, TopicMissing
from stream.ports import LogUnavailable
from stream.settings import Settings

Result = TypeVar("Result")
Client = TypeVar("Client", AdminClient, Consumer, Producer)
NO_TOPIC_ID: Final = "00000000-0000-0000-0000-000000000000"
CALL_S: Final = 10.0  # a call that answers later than this counts as failed
BACKOFF_S: Final = 0.1
REACH_S: Final = 5.0  # the same for the first one, while a user waits for the worker to start
MOCK_FETCH_WAIT_MS: Final = 10  # the mock cluster answers a fetch only when its wait is over
log = structlog.get_logger()
DENIED: Final = frozenset(
    (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    )
)
LARGEST_OUTPUT: Final = 2 << 20  # a dead letter holds all of a record that its headers made large


def connection(settings: Settings) -> dict[str, Any]:
    """Return the options of every confluent-kafka client; `kafka_options` may override them."""
    return {
        "bootstrap.servers": settings.bootstrap,
        "client.id": "emotrack",
        "log_level": 2,  # errors that matter are raised, or seen by `reachable`
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 2_000,
        **settings.security.librdkafka(),
        **settings.kafka_options,
    }


def consumer_config(settings: Settings) -> dict[str, Any]:
    """Return the worker's consumer options: manual commits, bounded fetch queue, small waits.

    A `group_protocol` of auto is the new one: `stream.serve` has asked the broker before.
    """
    group: dict[str, Any] = {"group.protocol": "consumer"}
    if settings.group_protocol == "classic" or (
        settings.group_protocol == "auto" and settings.mock_broker
    ):
        group = {
            "group.protocol": "classic",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": settings.session_timeout_ms,
            "heartbeat.interval.ms": classic_heartbeat_ms(settings.session_timeout_ms),
        }
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
    """Return the worker's producer options: idempotent, no linger, Java's partitioner."""
    return {
        "enable.idempotence": True,
        "linger.ms": 0,
        "partitioner": "murmur2_random",
        "delivery.timeout.ms": settings.delivery_timeout_ms,
        "message.max.bytes": LARGEST_OUTPUT,
        **connection(settings),
    }


def find_topic_id(settings: Settings) -> str:
    """Return the id of the utterances topic; the zero UUID on the mock cluster.

    Raises `BrokerUnreachable` or `TopicMissing`; `AccessRefused` where the worker lacks a right.
    """
    topic = settings.topics.utterances
    admin = create_client(AdminClient, connection(settings))
    try:
        if settings.mock_broker:
            admin.list_topics(timeout=REACH_S)
            return NO_TOPIC_ID
        require_rights(settings, admin, REACH_S)
        futures = admin.describe_topics(TopicCollection([topic]), request_timeout=REACH_S)
        return str(futures[topic].result(REACH_S).topic_id)
    except (KafkaException, TimeoutError) as error:
        if code_of(error) in DENIED:
            raise AccessRefused(
                f"Kafka at {settings.bootstrap} does not allow {user_of(settings)} that "
                f"({text_of(error)}): add the ACLs of docs/security.md"
            ) from None
        if code_of(error) == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise TopicMissing(
                f"topic {topic} does not exist: create it with `emotrack topics create`"
            ) from None
        raise BrokerUnreachable(
            f"no Kafka broker answers at {settings.bootstrap} ({text_of(error)}): start one, or "
            "set EMOTRACK_BOOTSTRAP"
        ) from None


def require_rights(settings: Settings, admin: AdminClient, timeout_s: float) -> None:
    """Return when a worker may read its topic and write its answers.

    A broker without an authorizer allows everything. Raises `AccessRefused`, naming the rights
    that are missing.
    """
    wanted = {
        settings.topics.utterances: AclOperation.READ,
        settings.topics.predictions: AclOperation.WRITE,
        settings.topics.shift_alerts: AclOperation.WRITE,
        settings.topics.dead_letters: AclOperation.WRITE,
    }
    topics = admin.describe_topics(
        TopicCollection(list(wanted)), include_authorized_operations=True, request_timeout=timeout_s
    )
    lacking = []
    for name, operation in wanted.items():
        try:
            allowed = topics[name].result(timeout_s).authorized_operations
        except KafkaException as error:
            if code_of(error) != KafkaError.TOPIC_AUTHORIZATION_FAILED:
                raise
            lacking.append(f"DESCRIBE and {operation.name} on topic {name}")
        else:
            if operation not in allowed:
                lacking.append(f"{operation.name} on topic {name}")
    groups = admin.describe_consumer_groups(
        [settings.group], include_authorized_operations=True, request_timeout=timeout_s
    )
    try:
        group = groups[settings.group].result(timeout_s)
        readable = AclOperation.READ in group.authorized_operations
    except KafkaException as error:
        # A group that does not exist yet cannot be described either, with another error.
        readable = error.args[0].code() != KafkaError.GROUP_AUTHORIZATION_FAILED
    if not readable:
        lacking.append(f"READ on group {settings.group}")
    if lacking:
        raise AccessRefused(
            f"{user_of(settings)} lacks {', '.join(lacking)} on {settings.bootstrap}: add the ACLs "
            "of docs/security.md"
        )


def user_of(settings: Settings) -> str:
    """Return the name of our user on the broker."""
    return settings.kafka_username or "this worker"


def create_client(client: Callable[[dict[str, Any]], Client], config: dict[str, Any]) -> Client:
    """Create a client. Raises `ConfigError` for an option librdkafka does not take."""
    try:
        return client(config)
    except KafkaException as error:
        raise ConfigError(
            f"Kafka refuses a setting ({text_of(error)}): see EMOTRACK_KAFKA_OPTIONS"
        ) from None


def retry(call: Callable[[], Result], fault: str) -> Result:
    """Call until it succeeds: right after a start or a failover, brokers refuse for a while.

    Raises `LogUnavailable`, a text that opens with `fault`, after `CALL_S` of refusals.
    """
    until = time.monotonic() + CALL_S
    while True:
        try:
            return call()
        except KafkaException as error:
            if time.monotonic() >= until:
                raise LogUnavailable(f"{fault}: {text_of(error)}") from None
            time.sleep(BACKOFF_S)


def close_quietly(close: Callable[[], object]) -> None:
    """Close a client; report a fault in the log instead of raising it.

    A client is closed when its work has ended, well or not: what it raises then hides why.
    """
    try:
        close()
    except Exception as error:
        log.warning("a client did not close cleanly", reason=text_of(error))


def code_of(error: Exception) -> int | None:
    """Return librdkafka's code of an exception, if it has one."""
    inner = error.args[0] if error.args else None
    return inner.code() if isinstance(inner, KafkaError) else None


def text_of(error: Exception) -> str:
    """Return the sentence of an exception of librdkafka."""
    inner = error.args[0] if error.args else None
    return inner.str() if isinstance(inner, KafkaError) else str(error) or type(error).__name__


class Lookup:
    """Offsets at which the utterances topic's partitions begin and end. Connects on first use.

    Uses a client of its own that never fetches: a broker answers a connection's requests in turn,
    so a request waits behind a fetch for as long as that waits for records (half a second).
    """

    def __init__(self, settings: Settings, group: str | None = None) -> None:
        self._settings, self._topic = settings, settings.topics.utterances
        group = group or f"{settings.group}.lookup"  # librdkafka wants one; it is never joined
        self._config = {"group.id": group, **connection(settings)}

    @cached_property
    def _client(self) -> Consumer:
        return create_client(Consumer, self._config)

    @cached_property
    def _admin(self) -> AdminClient:
        return create_client(AdminClient, connection(self._settings))

    def topic_id(self) -> str:
        """Return the id that the topic has now. Raises `LogUnavailable`."""
        described = retry(
            lambda: self._admin.describe_topics(
                TopicCollection([self._topic]), request_timeout=CALL_S
            )[self._topic].result(CALL_S),
            f"topic {self._topic} cannot be described",
        )
        return str(described.topic_id)

    def first(self, partition: int) -> int:
        """Return the first offset still in the log. Raises `LogUnavailable`."""
        at = TopicPartition(self._topic, partition)
        low, _ = retry(lambda: self._bounds(at), "the log's start cannot be read")
        return low

    def _bounds(self, at: TopicPartition) -> tuple[int, int]:
        try:
            return self._client.get_watermark_offsets(at, timeout=CALL_S)
        except KafkaException as error:
            if code_of(error) == KafkaError._UNKNOWN_PARTITION:
                # It was added since: a client learns of it within five minutes, or when it asks.
                self._client.list_topics(self._topic, timeout=CALL_S)
            raise

    def at(self, partition: int, time_ms: int) -> int:
        """Return the first offset of this time or later, else the end. Raises `LogUnavailable`."""
        fault = "the log cannot be searched by time"
        request = [TopicPartition(self._topic, partition, max(0, time_ms))]
        (found,) = retry(lambda: self._client.offsets_for_times(request, timeout=CALL_S), fault)
        if found.offset >= 0:
            return found.offset
        return retry(lambda: self.ends([partition], CALL_S), fault)[partition]

    def ends(self, partitions: Sequence[int], timeout_s: float) -> Mapping[int, int]:
        """Return the offsets after the last records, in one request. Raises `KafkaException`."""
        return self.offsets(OFFSET_END, partitions, timeout_s)

    def offsets(self, of: int, partitions: Sequence[int], timeout_s: float) -> Mapping[int, int]:
        """Return the offsets of OFFSET_BEGINNING or OFFSET_END, in one request.

        Raises `KafkaException`.
        """
        request = [TopicPartition(self._topic, p, of) for p in partitions]
        found = self._client.offsets_for_times(request, timeout=timeout_s)
        return {at.partition: at.offset for at in found}

    def close(self) -> None:
        """Release the connection; idempotent."""
        vars(self).pop("_admin", None)  # it has no `close`
        if (client := vars(self).pop("_client", None)) is not None:
            close_quietly(client.close)
