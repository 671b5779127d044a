"""The four topics: their planned settings, creation, a report of what differs, and its cure.

Admin work is done on kafka-python, so that the base install can do it. The worker never creates a
topic: `topic_survey.require_topics` stops it where one is missing or has unfit settings.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import kafka
import kafka.admin
import kafka.errors
from kafka.partitioner.default import murmur2

from stream.brokers.kafka_admin import connected_admin
from stream.brokers.replicas import add_replicas
from stream.brokers.topic_look import DENIED, Seen, brokers_of, lacking, look, require_visible, who
from stream.brokers.topic_rules import (
    DAY_MS,
    FOREVER,
    MIB,
    REPLICAS_OF,
    STAMP,
    Fault,
    Needs,
    in_sync_for,
    replicas_for,
)
from stream.brokers.topic_survey import survey
from stream.errors import AccessRefused, ConfigError, TopicUnfit
from stream.events.messages import TopicNames
from stream.security import PLAINTEXT, KafkaSecurity

KNOWN_S: Final = 10.0  # by then every broker has heard of a new topic
ASKED: Final = 3  # answers in a row that name it; each may come from another broker


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
    replicas: int = 0  # of the partition with the fewest
    config: Mapping[str, str] = field(default_factory=dict)  # empty: it may not be seen
    differs: tuple[str, ...] = ()
    created: bool = False


def plan(
    names: TopicNames,
    *,
    partitions: int = 4,
    replication: int = 1,
    retention_days: float | None = None,
    dead_letter_days: float = 28,
    needs: Needs | None = None,
) -> list[TopicPlan]:
    """Return the plans of the four topics. Raises `ConfigError` for numbers out of range.

    `retention_days` is by default 7, or more where a worker's sessions need it.
    """
    if partitions < 1 or replication < 1:
        raise ConfigError("partitions and replication must be at least 1")
    if (retention_days is not None and retention_days <= 0) or dead_letter_days <= 0:
        raise ConfigError("retention must be more than 0 days")

    def limits(milliseconds: int, mib: int) -> dict[str, str]:
        return {
            "cleanup.policy": "delete",
            "max.message.bytes": str(mib * MIB),
            "retention.ms": str(milliseconds),
            # A cluster's own default may be another one, and nothing could be written.
            "min.insync.replicas": str(in_sync_for(replication)),
            "unclean.leader.election.enable": "false",
        }

    usual_ms = max(7 * DAY_MS, (needs or Needs()).kept_ms)
    kept_ms = usual_ms if retention_days is None else int(retention_days * DAY_MS)
    events = limits(kept_ms, 1)
    # Broker time orders and times everything (docs/architecture.md §3b).
    utterances = {STAMP: "LogAppendTime", "retention.bytes": str(FOREVER)} | events
    letters = limits(int(dead_letter_days * DAY_MS), 2)
    return [
        TopicPlan(names.utterances, partitions, replication, utterances),
        TopicPlan(names.predictions, partitions, replication, events),
        TopicPlan(names.shift_alerts, partitions, replication, events),
        TopicPlan(names.dead_letters, partitions, replication, letters),
    ]


def partition_of(key: bytes, partitions: int) -> int:
    """Return a key's partition by murmur2, as Java's producers and ours choose it."""
    return int((murmur2(key) & 0x7FFFFFFF) % partitions)


def usual_replication(bootstrap: str, security: KafkaSecurity = PLAINTEXT) -> int:
    """Return how many replicas topics should have there: 3, or as many as there are brokers.

    Raises `BrokerUnreachable` or `AccessRefused`.
    """
    with connected_admin(bootstrap, security=security) as admin:
        return replicas_for(len(brokers_of(admin)))


def create(
    bootstrap: str, plans: Sequence[TopicPlan], security: KafkaSecurity = PLAINTEXT
) -> list[TopicReport]:
    """Create missing topics; leave existing ones unchanged and report differences. Idempotent.

    Raises `BrokerUnreachable`, `AccessRefused`, or `TopicUnfit` when the broker refuses one.
    """
    with connected_admin(bootstrap, security=security) as admin:
        there = set(admin.list_topics())
        missing = [topic for topic in plans if topic.name not in there]
        require_visible(admin, [topic.name for topic in missing], security)
        created = {topic.name for topic in missing if _create(admin, topic, security)}
        if missing:
            admin.wait_for_topics([topic.name for topic in missing])
        reports = _describe_all(admin, plans, security)
    return [replace(report, created=report.name in created) for report in reports]


def _describe_all(
    admin: Any, plans: Sequence[TopicPlan], security: KafkaSecurity
) -> list[TopicReport]:
    """Describe topics that were just created once the brokers know them: not all do at once."""
    until, seen = time.monotonic() + KNOWN_S, 0
    while True:
        reports = _describe(admin, plans, security)
        seen = seen + 1 if all(report.exists for report in reports) else 0
        if seen >= ASKED or time.monotonic() > until:
            return reports
        time.sleep(0.05 if seen else 0.2)


def describe(
    bootstrap: str, plans: Sequence[TopicPlan], security: KafkaSecurity = PLAINTEXT
) -> list[TopicReport]:
    """Report each topic and its differences. Raises `BrokerUnreachable` or `AccessRefused`."""
    with connected_admin(bootstrap, security=security) as admin:
        return _describe(admin, plans, security)


def fix(
    bootstrap: str,
    names: TopicNames,
    needs: Needs,
    security: KafkaSecurity = PLAINTEXT,
    replication: int | None = None,
) -> tuple[list[Fault], list[Fault]]:
    """Set what breaks or weakens a promise; return what was set, and what is left.

    With `replication` partitions that have fewer replicas get more, first: that copies them, and
    may take long. Raises `BrokerUnreachable`, `AccessRefused`, or `TopicUnfit` when the broker
    refuses.
    """
    added: list[Fault] = []
    with connected_admin(bootstrap, security=security, current=replication is not None) as admin:
        if replication is not None:
            before = survey(admin, names, needs, security)
            if few := [t.name for t in before.topics.values() if t.replicas < replication]:
                add_replicas(admin, few, replication, security)
                added = [Fault(name, REPLICAS_OF, False, "", str(replication)) for name in few]
        faults = survey(admin, names, needs, security).faults
        settable = [f for f in faults if f.cure is not None and f.setting != REPLICAS_OF]
        for topic in dict.fromkeys(fault.topic for fault in settable):
            wanted = {f.setting: f.cure for f in settable if f.topic == topic}
            _alter(admin, topic, wanted, security)
    return added + settable, [fault for fault in faults if fault not in settable]


def _alter(
    admin: Any, topic: str, wanted: Mapping[str, str | None], security: KafkaSecurity
) -> None:
    resource = kafka.admin.ConfigResource("TOPIC", topic, dict(wanted))
    try:
        answer = admin.alter_configs([resource], raise_on_unknown=False)["topic"][topic]
    except kafka.errors.KafkaError as error:
        answer = str(error)
    if answer == "OK":
        return
    settings = ",".join(f"{name}={value}" for name, value in wanted.items())
    if "AuthorizationFailed" in answer:
        right = lacking("ALTER_CONFIGS", [topic], security)
        raise AccessRefused(f"{right}, or have somebody who has it set {settings}")
    raise TopicUnfit(f"the broker refused to set {settings} on {topic} ({answer})")


def _create(admin: Any, topic: TopicPlan, security: KafkaSecurity) -> bool:
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
    except DENIED as error:
        settings = " ".join(f"--config {name}={value}" for name, value in topic.config.items())
        raise AccessRefused(
            f"{who(security)} lacks CREATE on topic {topic.name} (or on the cluster): add it, or "
            f"have it made with --partitions {topic.partitions} --replication-factor "
            f"{topic.replication} {settings}"
        ) from error
    except kafka.errors.InvalidReplicationFactorError as error:
        raise TopicUnfit(
            f"{topic.name}: the cluster has fewer than {topic.replication} brokers; "
            "use a smaller --replication"
        ) from error
    except kafka.errors.KafkaError as error:
        raise TopicUnfit(f"the broker refused to create {topic.name}: {error}") from error
    return True


def _describe(admin: Any, plans: Sequence[TopicPlan], security: KafkaSecurity) -> list[TopicReport]:
    seen = look(admin, [topic.name for topic in plans], security)
    return [
        _report(topic, seen[topic.name], security)
        if topic.name in seen
        else TopicReport(topic.name, exists=False)
        for topic in plans
    ]


def _report(topic: TopicPlan, seen: Seen, security: KafkaSecurity) -> TopicReport:
    numbers = {
        "partitions": (seen.partitions, topic.partitions),
        REPLICAS_OF: (seen.replicas, topic.replication),
    }
    differs = [
        f"{what} is {is_}, planned {wanted}"
        for what, (is_, wanted) in numbers.items()
        if is_ != wanted
    ]
    if seen.config:
        differs += [
            f"{name} is {seen.config.get(name)}, planned {value}"
            for name, value in topic.config.items()
            if seen.config.get(name) != value
        ]
    else:
        right = lacking("DESCRIBE_CONFIGS", [topic.name], security)
        differs.append(f"its settings are not compared: {right}")
    shown = {name: seen.config[name] for name in (STAMP, *topic.config) if name in seen.config}
    return TopicReport(topic.name, True, seen.partitions, seen.replicas, shown, tuple(differs))
