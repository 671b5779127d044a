"""Give partitions more replicas, as Kafka's kafka-reassign-partitions.sh does.

What a partition has stays where it is, its leader too: brokers are only added, those with the
fewest replicas of our topics first, and in other racks where racks are known.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import kafka.errors
from kafka import TopicPartition

from stream.brokers.topic_look import brokers_of, who
from stream.errors import AccessRefused, ConfigError, TopicUnfit
from stream.security import KafkaSecurity

COPIED_S: Final = 60.0  # longest wait for the copies; the brokers go on without us
LOOK_S: Final = 0.5
Racks = Mapping[int, str | None]  # by broker


def add_replicas(
    admin: Any, topics: Sequence[str], replication: int, security: KafkaSecurity
) -> None:
    """Have each partition of these topics copied to `replication` brokers; wait for the copies.

    Needs a client that speaks Kafka 2.4 or newer. Raises `ConfigError` where there are fewer
    brokers, `AccessRefused` without ALTER on the cluster, `TopicUnfit` where the broker refuses,
    or still copies after a minute.
    """
    racks = {broker["broker_id"]: broker["rack"] for broker in brokers_of(admin)}
    if replication > len(racks):
        raise ConfigError(
            f"the cluster has {len(racks)} broker{'s' * (len(racks) != 1)}: --replication "
            f"{replication} needs as many"
        )
    held = {
        TopicPartition(topic["name"], partition["partition_index"]): partition["replica_nodes"]
        for topic in admin.describe_topics(list(topics))
        for partition in topic["partitions"]
    }
    wanted = spread(held, racks, replication)
    try:
        answers = admin.alter_partition_reassignments(wanted)
    except kafka.errors.ClusterAuthorizationFailedError as error:
        raise AccessRefused(
            f"{who(security)} lacks ALTER on the cluster, which adding replicas needs: add it, or "
            "have somebody who has it run this"
        ) from error
    if refused := {str(at): error.__name__ for at, error in answers.items() if error is not None}:
        raise TopicUnfit(f"the broker refused to add replicas: {refused}")
    until = time.monotonic() + COPIED_S
    while admin.list_partition_reassignments(list(wanted)):
        if time.monotonic() > until:
            raise TopicUnfit(
                f"the brokers still copy {', '.join(topics)}, and go on by themselves: run this "
                "again later, to set what needs the copies"
            )
        time.sleep(LOOK_S)


def spread(
    held: Mapping[TopicPartition, Sequence[int]], racks: Racks, replication: int
) -> dict[TopicPartition, list[int]]:
    """Return the brokers that partitions with fewer replicas should be on; pure."""
    load = Counter(broker for brokers in held.values() for broker in brokers)
    wanted = {}
    for at, brokers in held.items():
        chosen = list(brokers)
        while len(chosen) < replication:
            used = Counter(racks.get(broker) for broker in chosen)
            best = min(
                (broker for broker in racks if broker not in chosen),
                key=lambda broker: (used[racks[broker]], load[broker], broker),
            )
            chosen.append(best)
            load[best] += 1
        if len(chosen) > len(brokers):
            wanted[at] = chosen
    return wanted
