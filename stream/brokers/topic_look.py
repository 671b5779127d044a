"""A broker's account of topics; what it does not tell, and the right that would show it.

kafka-python's own calls hide why a setting is missing (a topic without the right to see it has
none), so the requests are sent here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import kafka.errors
from kafka.admin import ConfigResourceType
from kafka.protocol.admin import DescribeConfigsRequest

from stream.errors import AccessRefused
from stream.security import KafkaSecurity

TOPIC: Final = int(ConfigResourceType.TOPIC)
GROUP: Final = int(ConfigResourceType.GROUP)
BROKER: Final = int(ConfigResourceType.BROKER)
DENIED: Final = (
    kafka.errors.TopicAuthorizationFailedError,
    kafka.errors.GroupAuthorizationFailedError,
    kafka.errors.ClusterAuthorizationFailedError,
)
Config = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Seen:
    """One topic that exists; `config` is empty where the user may not see it."""

    name: str
    config: Config
    partitions: int
    replicas: int  # of the partition with the fewest
    in_sync: int


def configs(
    admin: Any, kind: int, names: Sequence[str]
) -> dict[str, Config | kafka.errors.KafkaError]:
    """Return the settings of topics, groups or brokers, or the broker's refusal of each."""
    wanted = [(kind, name, None) for name in names]
    answer = admin._manager.run(admin._manager.send, DescribeConfigsRequest(resources=wanted))
    found: dict[str, Config | kafka.errors.KafkaError] = {}
    for result in answer.results:
        refused = kafka.errors.for_code(result.error_code)
        if refused is not kafka.errors.NoError:
            found[result.resource_name] = refused(result.error_message)
        else:
            entries = result.configs
            found[result.resource_name] = {entry.name: str(entry.value) for entry in entries}
    return found


def look(admin: Any, names: Sequence[str], security: KafkaSecurity) -> dict[str, Seen]:
    """Return those of these topics that exist.

    Raises `AccessRefused` where the user may not even know whether one does, `KafkaError` where
    the broker tells no settings at all (librdkafka's mock cluster).
    """
    there = set(admin.list_topics())
    present = [name for name in names if name in there]
    require_visible(admin, [name for name in names if name not in there], security)
    if not present:
        return {}
    told = configs(admin, TOPIC, present)
    for refused in told.values():
        if isinstance(refused, kafka.errors.KafkaError) and not isinstance(refused, DENIED):
            raise refused
    return {
        topic["name"]: _seen(topic, told[topic["name"]]) for topic in admin.describe_topics(present)
    }


def _seen(topic: Mapping[str, Any], told: Config | kafka.errors.KafkaError) -> Seen:
    partitions = topic["partitions"]
    return Seen(
        topic["name"],
        {} if isinstance(told, kafka.errors.KafkaError) else told,
        len(partitions),
        min((len(p["replica_nodes"]) for p in partitions), default=1),
        min((len(p["isr_nodes"]) for p in partitions), default=1),
    )


def require_visible(admin: Any, names: Sequence[str], security: KafkaSecurity) -> None:
    """Return where topics that are not listed do not exist. Raises `AccessRefused`: hidden."""
    if not names:
        return
    denied = kafka.errors.TopicAuthorizationFailedError.errno
    hidden = [t["name"] for t in admin.describe_topics(list(names)) if t["error_code"] == denied]
    if hidden:
        raise AccessRefused(lacking("DESCRIBE", hidden, security))


def lacking(right: str, topics: Iterable[str], security: KafkaSecurity) -> str:
    """Return a sentence on a right that this user lacks on topics, and where it is listed."""
    which = ", ".join(f"topic {name}" for name in topics)
    return f"{who(security)} lacks {right} on {which}: add the ACLs of docs/security.md"


def who(security: KafkaSecurity) -> str:
    """Return the name of our user."""
    return security.username or "this client"


def brokers_of(admin: Any) -> list[dict[str, Any]]:
    """Return the brokers of the cluster that are up."""
    found = admin.describe_cluster()["brokers"]
    return [broker for broker in found if not broker.get("is_fenced")]
