"""The four topics as they are: what breaks or weakens a promise, and what a person must know.

The worker never creates a topic: `require_topics` stops it where one is missing or unfit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import kafka.errors

from stream.brokers.kafka_admin import connected_admin
from stream.brokers.topic_look import Seen, brokers_of, lacking, look, require_visible
from stream.brokers.topic_rules import (
    FOREVER,
    HOUR_MS,
    Fault,
    Found,
    Needs,
    curing,
    faults_of,
    role_of,
)
from stream.errors import AccessRefused, TopicMissing, TopicUnfit
from stream.events.messages import TopicNames
from stream.security import PLAINTEXT, KafkaSecurity


@dataclass(frozen=True, slots=True)
class Survey:
    """The four topics as they are, and what is wrong with them."""

    topics: Mapping[str, Seen]
    brokers: int
    faults: tuple[Fault, ...]

    @property
    def unseen(self) -> list[str]:
        """The topics whose settings this user may not see."""
        return [name for name, topic in self.topics.items() if not topic.config]


def examine(
    bootstrap: str, names: TopicNames, needs: Needs, security: KafkaSecurity = PLAINTEXT
) -> Survey:
    """Return what there is of the topics, and what of it breaks or weakens a promise.

    Raises `BrokerUnreachable`, `AccessRefused`, or `TopicUnfit` where the broker tells no
    settings at all.
    """
    with connected_admin(bootstrap, security=security) as admin:
        return survey(admin, names, needs, security)


def require_topics(
    bootstrap: str,
    names: TopicNames,
    *,
    needs: Needs | None = None,
    security: KafkaSecurity = PLAINTEXT,
) -> Survey:
    """Return what there is, with what weakens a promise, when the worker may run on these topics.

    Raises `TopicMissing`; `TopicUnfit` when a setting breaks a promise; `BrokerUnreachable` or
    `AccessRefused`. Brokers without an admin API (librdkafka's mock cluster) do not report
    settings: they need `allow_create_time`, and nothing is said about them.
    """
    needs = needs or Needs()
    with connected_admin(bootstrap, security=security) as admin:
        there = set(admin.list_topics())
        missing = [name for name in _names(names) if name not in there]
        if missing:
            require_visible(admin, missing, security)
            raise TopicMissing(
                f"missing on {bootstrap}: {', '.join(missing)}. Create them with `emotrack topics "
                f"create --bootstrap {bootstrap} --topic-prefix {names.prefix}`"
            )
        try:
            found = survey(admin, names, needs, security)
        except TopicUnfit:
            if needs.allow_create_time:
                return Survey({}, 1, ())
            raise
    if names.utterances in found.unseen and not needs.allow_create_time:
        right = lacking("DESCRIBE_CONFIGS", [names.utterances], security)
        raise AccessRefused(
            f"{right}, or accept producer time with EMOTRACK_ALLOW_CREATE_TIME=true"
        )
    broken = [fault for fault in found.faults if fault.breaks]
    if broken:
        says = "; ".join(fault.says for fault in broken)
        raise TopicUnfit(f"{says}. Instead, {curing(broken, bootstrap, names.prefix)}")
    return found


def survey(admin: Any, names: TopicNames, needs: Needs, security: KafkaSecurity) -> Survey:
    """Return what there is of the topics, and its faults, by a connected client.

    Raises `AccessRefused`, or `TopicUnfit` where the broker tells no settings at all.
    """
    try:
        seen = look(admin, _names(names), security)
    except kafka.errors.KafkaError as error:
        raise TopicUnfit(
            f"the broker does not tell the settings of {names.prefix}* ({error}): accept producer "
            "time with EMOTRACK_ALLOW_CREATE_TIME=true, or use one that does"
        ) from error
    brokers = len(brokers_of(admin))
    faults = [
        fault
        for name, topic in seen.items()
        for fault in faults_of(
            name,
            Found(role_of(name, names), topic.config, topic.replicas, brokers, topic.in_sync),
            needs,
        )
    ]
    return Survey(seen, brokers, tuple(faults))


def _names(names: TopicNames) -> list[str]:
    return [names.utterances, names.predictions, names.shift_alerts, names.dead_letters]


def durability(found: Survey, names: TopicNames, needs: Needs) -> str:
    """Return how many copies there are and how long an outage may be, as a clause; maybe empty."""
    if not found.topics:
        return ""
    counts = sorted({topic.replicas for topic in found.topics.values()})
    brokers = f"{found.brokers} broker{'s' * (found.brokers != 1)}"
    says = f", each partition on {' or '.join(map(str, counts))} of {brokers}"
    config = found.topics[names.utterances].config
    kept_ms = Found("utterances", config).number("retention.ms", FOREVER)
    if kept_ms == FOREVER:
        return says
    spare_h = max(0, kept_ms - needs.session_ms) // HOUR_MS
    return f"{says}, and an outage of up to {spare_h:,} h loses nothing"


def remarks(found: Survey, names: TopicNames, security: KafkaSecurity) -> Iterator[str]:
    """Yield what is no fault of a topic and yet worth knowing."""
    utterances = found.topics.get(names.utterances)
    if utterances is not None and utterances.partitions == 1:
        yield (
            f"topic {names.utterances} has one partition, so at most one worker answers: `emotrack "
            "capacity` says how many it should have; adding some later moves conversations once"
        )
    if found.unseen:
        yield f"not all was looked at, since {lacking('DESCRIBE_CONFIGS', found.unseen, security)}"
