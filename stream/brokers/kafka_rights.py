"""Check before the first record that the broker grants the worker the rights it needs."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient  # type: ignore[attr-defined]  # public, not re-exported

from stream.errors import AccessRefused
from stream.settings import Settings


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
    lacking = [
        f"{operation.name} on topic {name}"
        for name, operation in wanted.items()
        if operation not in topics[name].result(timeout_s).authorized_operations
    ]
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
            f"{settings.kafka_username or 'this worker'} lacks {', '.join(lacking)} on "
            f"{settings.bootstrap}: add the ACLs of docs/security.md"
        )
