"""The four topics: what they must be, creating them, and saying what differs.

Admin work is done on kafka-python, so that the base install can do it. The worker never creates a
topic: `require_topics` stops it where one is missing or would break a promise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import kafka
import kafka.admin
import kafka.errors
from kafka.partitioner.default import murmur2

from stream.brokers.kafka_admin import connected_admin, or_hidden
from stream.errors import ConfigError, TopicMissing, TopicUnfit
from stream.events.messages import TopicNames
from stream.security import PLAINTEXT, KafkaSecurity

_STAMP: Final = "message.timestamp.type"
DAY_MS: Final = 86_400_000
MIB: Final = 1 << 20
_NOT_AUTHORIZED: Final = (
    kafka.errors.TopicAuthorizationFailedError,
    kafka.errors.ClusterAuthorizationFailedError,
)


@dataclass(frozen=True, slots=True)
class TopicPlan:
    """One topic as it should be."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TopicReport:
    """One topic as it is; `differs` holds one line for each setting that is not as planned."""

    name: str
    exists: bool
    partitions: int = 0
    config: Mapping[str, str] = field(default_factory=dict)
    differs: tuple[str, ...] = ()
    created: bool = False


def plan(
    names: TopicNames,
    *,
    partitions: int = 4,
    replication: int = 1,
    retention_days: float = 7,
    dead_letter_days: float = 28,
) -> list[TopicPlan]:
    """The four topics. Raises `ConfigError` for numbers that cannot be."""
    if partitions < 1 or replication < 1:
        raise ConfigError("partitions and replication must be at least 1")
    if retention_days <= 0 or dead_letter_days <= 0:
        raise ConfigError("retention must be more than 0 days")
    days = {"retention.ms": str(int(retention_days * DAY_MS))}
    weeks = {"retention.ms": str(int(dead_letter_days * DAY_MS))}
    one, two = {"max.message.bytes": str(MIB)}, {"max.message.bytes": str(2 * MIB)}
    # Broker time orders and times everything (architecture §3b).
    utterances = {_STAMP: "LogAppendTime"} | one | days
    return [
        TopicPlan(names.utterances, partitions, replication, utterances),
        TopicPlan(names.predictions, partitions, replication, one | days),
        TopicPlan(names.shift_alerts, partitions, replication, one | days),
        TopicPlan(names.dead_letters, partitions, replication, two | weeks),
    ]


def partition_of(key: bytes, partitions: int) -> int:
    """The partition Java's and our own producers write a key to: murmur2, as in Kafka's default."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def create(
    bootstrap: str, plans: Sequence[TopicPlan], security: KafkaSecurity = PLAINTEXT
) -> list[TopicReport]:
    """Create what is missing; leave what exists as it is and say what differs. Idempotent.

    Raises `BrokerUnreachable`, `AccessRefused`, or `TopicUnfit` when the broker refuses one.
    """
    with connected_admin(bootstrap, security=security) as admin:
        there = set(admin.list_topics())
        missing = [one for one in plans if one.name not in there]
        created = {one.name for one in missing if _create_one(admin, one)}
        if missing:
            admin.wait_for_topics([one.name for one in missing])
        reports = _describe(admin, plans)
    return [replace(one, created=one.name in created) for one in reports]


def describe(
    bootstrap: str, plans: Sequence[TopicPlan], security: KafkaSecurity = PLAINTEXT
) -> list[TopicReport]:
    """Say how each topic is and what differs from its plan.

    Raises `BrokerUnreachable` or `AccessRefused`.
    """
    with connected_admin(bootstrap, security=security) as admin:
        return _describe(admin, plans)


def require_topics(
    bootstrap: str,
    names: TopicNames | None = None,
    *,
    allow_create_time: bool = False,
    security: KafkaSecurity = PLAINTEXT,
) -> None:
    """Return when the worker may run on these topics.

    Raises `TopicMissing`; `TopicUnfit` when utterances carry producer time (unless
    `allow_create_time`); `BrokerUnreachable` or `AccessRefused`. Brokers without an admin API
    (librdkafka's mock cluster) cannot say how they stamp records: they need `allow_create_time`.
    """
    names = names or TopicNames()
    with connected_admin(bootstrap, security=security) as admin:
        there = set(admin.list_topics())
        wanted = [names.utterances, names.predictions, names.shift_alerts, names.dead_letters]
        missing = [name for name in wanted if name not in there]
        if missing:
            raise TopicMissing(
                f"missing on {bootstrap}{or_hidden(security)}: {', '.join(missing)}. Create them "
                f"with `emotrack topics create --bootstrap {bootstrap} "
                f"--topic-prefix {names.prefix}`"
            )
        if allow_create_time:
            return
        stamp = _configs(admin, [names.utterances])[names.utterances].get(_STAMP, "unknown")
    if stamp != "LogAppendTime":
        raise TopicUnfit(
            f"topic {names.utterances} has message.timestamp.type={stamp}: sessions and latencies "
            "need broker time. Set it with `kafka-configs.sh --alter --entity-type topics "
            f"--entity-name {names.utterances} --add-config message.timestamp.type=LogAppendTime`, "
            "or accept producer time with EMOTRACK_ALLOW_CREATE_TIME=true"
        )


def _create_one(admin: Any, one: TopicPlan) -> bool:
    """Create a topic; False when someone else just did."""
    wanted = {
        "num_partitions": one.partitions,
        "replication_factor": one.replication,
        "configs": dict(one.config),
    }
    try:
        admin.create_topics({one.name: wanted})
    except kafka.errors.TopicAlreadyExistsError:
        return False
    except _NOT_AUTHORIZED as error:
        raise TopicUnfit(
            f"not allowed to create {one.name}: ask for CREATE on the cluster, or have it made "
            f"with {one.partitions} partitions and {dict(one.config)}"
        ) from error
    except kafka.errors.InvalidReplicationFactorError as error:
        raise TopicUnfit(
            f"{one.name}: the cluster has fewer than {one.replication} brokers; "
            "use a smaller --replication"
        ) from error
    except kafka.errors.KafkaError as error:
        raise TopicUnfit(f"the broker refused to create {one.name}: {error}") from error
    return True


def _describe(admin: Any, plans: Sequence[TopicPlan]) -> list[TopicReport]:
    there = set(admin.list_topics())
    names = [one.name for one in plans if one.name in there]
    configs = _configs(admin, names) if names else {}
    found = admin.describe_topics(names) if names else []
    partitions = {topic["name"]: len(topic["partitions"]) for topic in found}
    return [
        _report(one, partitions[one.name], configs[one.name])
        if one.name in there
        else TopicReport(one.name, exists=False)
        for one in plans
    ]


def _report(one: TopicPlan, partitions: int, config: Mapping[str, str]) -> TopicReport:
    differs = [
        f"{name} is {config.get(name)}, planned {value}"
        for name, value in one.config.items()
        if config.get(name) != value
    ]
    if partitions != one.partitions:
        differs.append(f"partitions is {partitions}, planned {one.partitions}")
    shown = {name: config.get(name, "?") for name in (_STAMP, *one.config)}
    return TopicReport(one.name, True, partitions, shown, tuple(differs))


def _configs(admin: Any, names: Sequence[str]) -> dict[str, dict[str, str]]:
    resources = [kafka.admin.ConfigResource("TOPIC", name) for name in names]
    try:
        found = admin.describe_configs(resources, config_filter="all")["topic"]
    except kafka.errors.KafkaError as error:
        raise TopicUnfit(
            f"the broker does not say how it stamps records ({error}): allow DESCRIBE_CONFIGS, or "
            "accept producer time with EMOTRACK_ALLOW_CREATE_TIME=true"
        ) from error
    return {
        name: {key: str(entry["value"]) for key, entry in entries.items()}
        for name, entries in found.items()
    }
