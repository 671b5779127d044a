"""The four topics: their required settings, creation, and a report of what differs.

Admin work is done on kafka-python, so that the base install can do it. The worker never creates a
topic: `require_topics` stops it where one is missing or has unfit settings.
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
    """The planned settings of one topic."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TopicReport:
    """The present settings of one topic; `differs` has a line for each that is not as planned."""

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
    """Return the plans of the four topics. Raises `ConfigError` for numbers out of range."""
    if partitions < 1 or replication < 1:
        raise ConfigError("partitions and replication must be at least 1")
    if retention_days <= 0 or dead_letter_days <= 0:
        raise ConfigError("retention must be more than 0 days")

    def limits(days: float, mib: int) -> dict[str, str]:
        return {"max.message.bytes": str(mib * MIB), "retention.ms": str(int(days * DAY_MS))}

    events = limits(retention_days, 1)
    # Broker time orders and times everything (docs/architecture.md §3b).
    utterances = {_STAMP: "LogAppendTime"} | events
    return [
        TopicPlan(names.utterances, partitions, replication, utterances),
        TopicPlan(names.predictions, partitions, replication, events),
        TopicPlan(names.shift_alerts, partitions, replication, events),
        TopicPlan(names.dead_letters, partitions, replication, limits(dead_letter_days, 2)),
    ]


def partition_of(key: bytes, partitions: int) -> int:
    """Return a key's partition by murmur2, as Java's producers and ours choose it."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def create(
    bootstrap: str, plans: Sequence[TopicPlan], security: KafkaSecurity = PLAINTEXT
) -> list[TopicReport]:
    """Create missing topics; leave existing ones unchanged and report differences. Idempotent.

    Raises `BrokerUnreachable`, `AccessRefused`, or `TopicUnfit` when the broker refuses one.
    """
    with connected_admin(bootstrap, security=security) as admin:
        there = set(admin.list_topics())
        missing = [topic for topic in plans if topic.name not in there]
        created = {topic.name for topic in missing if _create(admin, topic)}
        if missing:
            admin.wait_for_topics([topic.name for topic in missing])
        reports = _describe(admin, plans)
    return [replace(report, created=report.name in created) for report in reports]


def describe(
    bootstrap: str, plans: Sequence[TopicPlan], security: KafkaSecurity = PLAINTEXT
) -> list[TopicReport]:
    """Report each topic and its differences. Raises `BrokerUnreachable` or `AccessRefused`."""
    with connected_admin(bootstrap, security=security) as admin:
        return _describe(admin, plans)


def require_topics(
    bootstrap: str,
    names: TopicNames,
    *,
    allow_create_time: bool = False,
    security: KafkaSecurity = PLAINTEXT,
) -> None:
    """Return when the worker may run on these topics.

    Raises `TopicMissing`; `TopicUnfit` when utterances carry producer time (unless
    `allow_create_time`); `BrokerUnreachable` or `AccessRefused`. Brokers without an admin API
    (librdkafka's mock cluster) do not report how they stamp records: they need `allow_create_time`.
    """
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


def _create(admin: Any, topic: TopicPlan) -> bool:
    """Create a topic; return false when another client just did."""
    wanted = {
        "num_partitions": topic.partitions,
        "replication_factor": topic.replication,
        "configs": dict(topic.config),
    }
    try:
        admin.create_topics({topic.name: wanted})
    except kafka.errors.TopicAlreadyExistsError:
        return False
    except _NOT_AUTHORIZED as error:
        raise TopicUnfit(
            f"not allowed to create {topic.name}: ask for CREATE on the cluster, or have it made "
            f"with {topic.partitions} partitions and {dict(topic.config)}"
        ) from error
    except kafka.errors.InvalidReplicationFactorError as error:
        raise TopicUnfit(
            f"{topic.name}: the cluster has fewer than {topic.replication} brokers; "
            "use a smaller --replication"
        ) from error
    except kafka.errors.KafkaError as error:
        raise TopicUnfit(f"the broker refused to create {topic.name}: {error}") from error
    return True


def _describe(admin: Any, plans: Sequence[TopicPlan]) -> list[TopicReport]:
    there = set(admin.list_topics())
    names = [topic.name for topic in plans if topic.name in there]
    configs = _configs(admin, names) if names else {}
    found = admin.describe_topics(names) if names else []
    partitions = {topic["name"]: len(topic["partitions"]) for topic in found}
    return [
        _report(topic, partitions[topic.name], configs[topic.name])
        if topic.name in there
        else TopicReport(topic.name, exists=False)
        for topic in plans
    ]


def _report(topic: TopicPlan, partitions: int, config: Mapping[str, str]) -> TopicReport:
    differs = [
        f"{name} is {config.get(name)}, planned {value}"
        for name, value in topic.config.items()
        if config.get(name) != value
    ]
    if partitions != topic.partitions:
        differs.append(f"partitions is {partitions}, planned {topic.partitions}")
    shown = {name: config.get(name, "?") for name in (_STAMP, *topic.config)}
    return TopicReport(topic.name, True, partitions, shown, tuple(differs))


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
