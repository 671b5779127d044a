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
from stream.brokers.topic_rules import (
    DAY_MS,
    FOREVER,
    MIB,
    STAMP,
    Fault,
    Found,
    Needs,
    curing,
    faults_of,
    role_of,
)
from stream.errors import ConfigError, TopicMissing, TopicUnfit
from stream.events.messages import TopicNames
from stream.security import PLAINTEXT, KafkaSecurity

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
        limited = {
            "cleanup.policy": "delete",
            "max.message.bytes": str(mib * MIB),
            "retention.ms": str(int(days * DAY_MS)),
        }
        return limited if replication < 3 else limited | {"min.insync.replicas": "2"}

    events = limits(retention_days, 1)
    # Broker time orders and times everything (docs/architecture.md §3b).
    utterances = {STAMP: "LogAppendTime", "retention.bytes": str(FOREVER)} | events
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


def examine(
    bootstrap: str, names: TopicNames, needs: Needs, security: KafkaSecurity = PLAINTEXT
) -> list[Fault]:
    """Return what breaks or weakens a promise, of the topics that exist and can be described.

    Raises `BrokerUnreachable`, `AccessRefused`, or `TopicUnfit` where not even the settings of
    the utterances topic are told.
    """
    with connected_admin(bootstrap, security=security) as admin:
        return _examine(admin, names, needs)


def fix(
    bootstrap: str, names: TopicNames, needs: Needs, security: KafkaSecurity = PLAINTEXT
) -> tuple[list[Fault], list[Fault]]:
    """Set what breaks or weakens a promise; return what was set, and what is left.

    Raises `BrokerUnreachable`, `AccessRefused`, or `TopicUnfit` when the broker refuses.
    """
    with connected_admin(bootstrap, security=security) as admin:
        faults = _examine(admin, names, needs)
        curable = [fault for fault in faults if fault.cure is not None]
        for topic in dict.fromkeys(fault.topic for fault in curable):
            wanted = {f.setting: f.cure for f in curable if f.topic == topic}
            _alter(admin, topic, wanted)
    return curable, [fault for fault in faults if fault.cure is None]


def require_topics(
    bootstrap: str,
    names: TopicNames,
    *,
    needs: Needs | None = None,
    security: KafkaSecurity = PLAINTEXT,
) -> list[Fault]:
    """Return what weakens a promise, when the worker may run on these topics.

    Raises `TopicMissing`; `TopicUnfit` when a setting breaks a promise; `BrokerUnreachable` or
    `AccessRefused`. Brokers without an admin API (librdkafka's mock cluster) do not report
    settings: they need `allow_create_time`, and nothing is said about them.
    """
    needs = needs or Needs()
    with connected_admin(bootstrap, security=security) as admin:
        there = set(admin.list_topics())
        missing = [name for name in _names(names) if name not in there]
        if missing:
            raise TopicMissing(
                f"missing on {bootstrap}{or_hidden(security)}: {', '.join(missing)}. Create them "
                f"with `emotrack topics create --bootstrap {bootstrap} "
                f"--topic-prefix {names.prefix}`"
            )
        try:
            faults = _examine(admin, names, needs)
        except TopicUnfit:
            if needs.allow_create_time:
                return []
            raise
    broken = [fault for fault in faults if fault.breaks]
    if broken:
        says = "; ".join(fault.says for fault in broken)
        raise TopicUnfit(f"{says}. Instead, {curing(broken, bootstrap, names.prefix)}")
    return faults


def _examine(admin: Any, names: TopicNames, needs: Needs) -> list[Fault]:
    there = set(admin.list_topics())
    wanted = {name: role_of(name, names) for name in _names(names) if name in there}
    configs = {name: config for name in wanted if (config := _config_or_none(admin, name, names))}
    if not configs:
        return []
    brokers = len(admin.describe_cluster()["brokers"])
    replicas = {
        topic["name"]: min((len(p["replica_nodes"]) for p in topic["partitions"]), default=1)
        for topic in admin.describe_topics(list(configs))
    }
    found = (
        (name, Found(wanted[name], config, replicas[name], brokers))
        for name, config in configs.items()
    )
    return [fault for name, topic in found for fault in faults_of(name, topic, needs)]


def _names(names: TopicNames) -> list[str]:
    return [names.utterances, names.predictions, names.shift_alerts, names.dead_letters]


def _config_or_none(admin: Any, name: str, names: TopicNames) -> dict[str, str] | None:
    """Return a topic's settings; None where we may not see them, unless it is utterances."""
    try:
        return _configs(admin, [name])[name]
    except TopicUnfit:
        if name == names.utterances:
            raise
        return None


def _alter(admin: Any, topic: str, wanted: Mapping[str, str | None]) -> None:
    resource = kafka.admin.ConfigResource("TOPIC", topic, dict(wanted))
    try:
        answer = admin.alter_configs([resource], raise_on_unknown=False)["topic"][topic]
    except kafka.errors.KafkaError as error:
        answer = str(error)
    if answer != "OK":
        settings = ",".join(f"{name}={value}" for name, value in wanted.items())
        raise TopicUnfit(
            f"the broker refused to set {settings} on {topic} ({answer}): ask for ALTER_CONFIGS on "
            "it, or have somebody who has it set this"
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
    shown = {name: config.get(name, "?") for name in (STAMP, *topic.config)}
    return TopicReport(topic.name, True, partitions, shown, tuple(differs))


def _configs(admin: Any, names: Sequence[str]) -> dict[str, dict[str, str]]:
    resources = [kafka.admin.ConfigResource("TOPIC", name) for name in names]
    try:
        found = admin.describe_configs(resources, config_filter="all")["topic"]
    except kafka.errors.KafkaError as error:
        raise TopicUnfit(
            f"the broker does not tell the settings of {', '.join(names)} ({error}): allow "
            "DESCRIBE_CONFIGS, or accept producer time with EMOTRACK_ALLOW_CREATE_TIME=true"
        ) from error
    return {
        name: {key: str(entry["value"]) for key, entry in entries.items()}
        for name, entries in found.items()
    }
