"""The answers of a broker that are no success: what a worker does about each, and the cure.

One table, `KINDS`, by librdkafka's code (its own are negative, Kafka's positive), also printed in
docs/reliability.md. A code that is not in it is logged, at most once a minute, and waited for:
nothing is lost by waiting, and what stands still is in the log and in the lag.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from confluent_kafka import KafkaError as E


class Act(StrEnum):
    """A worker's reaction."""

    WAIT = "waits and tries again"
    AGAIN = "reads again from the last commit"
    RENEW = "makes a new producer and sends again"
    HOLD = "holds the answers, is not ready, names the cure, and sends again"
    END = "ends with this sentence"


class Kind(NamedTuple):
    """One line of the table; `says` may be empty where there is nothing to cure."""

    codes: tuple[int, ...]
    act: Act
    says: str = ""


TABLE: Final = (
    Kind(
        (
            E._TRANSPORT,
            E._ALL_BROKERS_DOWN,
            E._TIMED_OUT,
            E._MSG_TIMED_OUT,
            E.NETWORK_EXCEPTION,
            E.REQUEST_TIMED_OUT,
            E.BROKER_NOT_AVAILABLE,
            E.REBOOTSTRAP_REQUIRED,
        ),
        Act.WAIT,
        "no broker answers in time: look whether it runs, and at the network",
    ),
    Kind(
        (E._RESOLVE,),
        Act.WAIT,
        "a broker's name does not resolve: correct EMOTRACK_BOOTSTRAP, or advertised.listeners on "
        "the broker",
    ),
    Kind(
        (E._SSL,),
        Act.WAIT,
        "TLS fails: compare the certificates, the clocks and EMOTRACK_KAFKA_CA_FILE",
    ),
    Kind(
        (E._AUTHENTICATION, E.SASL_AUTHENTICATION_FAILED),
        Act.WAIT,
        "the broker does not take our user any more: correct EMOTRACK_KAFKA_USERNAME and "
        "EMOTRACK_KAFKA_PASSWORD[_FILE] and start again, or add the user on the broker",
    ),
    Kind(
        (
            E.COORDINATOR_LOAD_IN_PROGRESS,
            E.COORDINATOR_NOT_AVAILABLE,
            E.NOT_COORDINATOR,
            E.LEADER_NOT_AVAILABLE,
            E.NOT_LEADER_FOR_PARTITION,
            E.REPLICA_NOT_AVAILABLE,
            E.FENCED_LEADER_EPOCH,
            E.UNKNOWN_LEADER_EPOCH,
            E.OFFSET_NOT_AVAILABLE,
            E.UNSTABLE_OFFSET_COMMIT,
            E.CONCURRENT_TRANSACTIONS,
            E.THROTTLING_QUOTA_EXCEEDED,
        ),
        Act.WAIT,
    ),
    Kind(
        (E.NOT_ENOUGH_REPLICAS, E.NOT_ENOUGH_REPLICAS_AFTER_APPEND),
        Act.WAIT,
        "too few replicas are in sync: bring the brokers back, or see min.insync.replicas",
    ),
    Kind(
        (E.KAFKA_STORAGE_ERROR, E.LOG_DIR_NOT_FOUND),
        Act.WAIT,
        "a broker cannot use its disk: look whether it is full or broken",
    ),
    Kind(
        (E.INVALID_MSG, E._BAD_MSG, E._BAD_COMPRESSION),
        Act.WAIT,
        "a batch in the log is damaged, and its partition cannot be read any further: have "
        "another replica lead it, or reset the group past it (kafka-consumer-groups.sh "
        "--reset-offsets), which loses what it holds",
    ),
    Kind(
        (
            E.UNKNOWN_MEMBER_ID,
            E.ILLEGAL_GENERATION,
            E.REBALANCE_IN_PROGRESS,
            E.STALE_MEMBER_EPOCH,
            E.FENCED_MEMBER_EPOCH,
            E._ASSIGNMENT_LOST,
            E._MAX_POLL_EXCEEDED,
            E._STATE,
        ),
        Act.AGAIN,
    ),
    Kind(
        (
            E.INVALID_PRODUCER_EPOCH,
            E.PRODUCER_FENCED,
            E.INVALID_PRODUCER_ID_MAPPING,
            E.UNKNOWN_PRODUCER_ID,
            E.OUT_OF_ORDER_SEQUENCE_NUMBER,
            E.DUPLICATE_SEQUENCE_NUMBER,
            E.INVALID_TXN_STATE,
            E.TRANSACTION_ABORTABLE,
            E.TRANSACTION_COORDINATOR_FENCED,
            E._FENCED,
            E._FATAL,
            E._GAPLESS_GUARANTEE,
            E._PURGE_QUEUE,
            E._PURGE_INFLIGHT,
        ),
        Act.RENEW,
    ),
    Kind(
        (E.MSG_SIZE_TOO_LARGE, E.RECORD_LIST_TOO_LARGE, E.INVALID_MSG_SIZE),
        Act.HOLD,
        "it takes no record of that size: raise max.message.bytes with `emotrack topics fix`",
    ),
    Kind(
        (E.INVALID_RECORD,),
        Act.HOLD,
        "it refuses the record (a compacted topic takes none without a key): set cleanup.policy "
        "with `emotrack topics fix`, or look into the broker's log",
    ),
    Kind(
        (E.INVALID_TIMESTAMP,),
        Act.HOLD,
        "it refuses the record's time: set this machine's clock, or message.timestamp.before.max.ms"
        " and message.timestamp.after.max.ms with `emotrack topics fix`",
    ),
    Kind(
        (E.POLICY_VIOLATION,),
        Act.HOLD,
        "a policy of the broker refuses the record: ask its operators",
    ),
    Kind(
        (E.UNSUPPORTED_COMPRESSION_TYPE,),
        Act.HOLD,
        "it does not take the codec: remove compression.type from EMOTRACK_KAFKA_OPTIONS",
    ),
    Kind(
        (E.CLUSTER_AUTHORIZATION_FAILED, E.TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
        Act.HOLD,
        "this user may not write so (IdempotentWrite, or the transactional id): add the ACLs of "
        "docs/security.md",
    ),
    Kind(
        (E.TOPIC_AUTHORIZATION_FAILED, E.GROUP_AUTHORIZATION_FAILED),
        Act.END,
        "this user may not do that any more: add the ACLs of docs/security.md",
    ),
    Kind(
        (
            E.UNKNOWN_TOPIC_OR_PART,
            E.UNKNOWN_TOPIC_ID,
            E.INCONSISTENT_TOPIC_ID,
            E._UNKNOWN_TOPIC,
            E._UNKNOWN_PARTITION,
        ),
        Act.END,
        "the topic was deleted: create it with `emotrack topics create`",
    ),
    Kind(
        (E.UNSUPPORTED_VERSION, E._UNSUPPORTED_FEATURE, E.UNSUPPORTED_ASSIGNOR),
        Act.END,
        "a broker before Kafka 4 has no such group protocol: leave EMOTRACK_GROUP_PROTOCOL at "
        "auto, or set classic",
    ),
    Kind(
        (E.GROUP_MAX_SIZE_REACHED,),
        Act.END,
        "the group has as many members as the broker allows: start fewer workers, or raise "
        "group.consumer.max.size (classic: group.max.size) on the broker",
    ),
    Kind(
        (E.INVALID_SESSION_TIMEOUT,),
        Act.END,
        "EMOTRACK_SESSION_TIMEOUT_MS is outside of the broker's group.min.session.timeout.ms and "
        "group.max.session.timeout.ms: set it within",
    ),
    Kind(
        (E.INCONSISTENT_GROUP_PROTOCOL, E.INVALID_GROUP_ID),
        Act.END,
        "clients of another kind are in this group: give the workers one of their own "
        "(EMOTRACK_GROUP), and all of them the same EMOTRACK_GROUP_PROTOCOL, or set "
        "group.consumer.migration.policy=bidirectional on the broker",
    ),
    Kind(
        (E.GROUP_ID_NOT_FOUND,),
        Act.END,
        "the group's workers joined by the classic protocol, and the broker lets none in by Kafka "
        "4's: leave EMOTRACK_GROUP_PROTOCOL at auto, or stop all of them first",
    ),
    Kind(
        (E.FENCED_INSTANCE_ID, E.UNRELEASED_INSTANCE_ID),
        Act.END,
        "another worker has the same group.instance.id: remove it from EMOTRACK_KAFKA_OPTIONS",
    ),
)
KINDS: Final[Mapping[int, Kind]] = {code: kind for kind in TABLE for code in kind.codes}
UNKNOWN: Final = Kind((), Act.WAIT)


def kind_of(code: int | None) -> Kind:
    """Return a code's line; `UNKNOWN` for one that the table does not have."""
    return UNKNOWN if code is None else KINDS.get(code, UNKNOWN)


def cause_of(error: E) -> int:
    """Return the code of an error; of a client's fatal one, which names it in words, the cause."""
    if error.code() != E._FATAL:
        return int(error.code())
    text = error.str()
    return next((code for code in KINDS if code >= 0 and E(code).str() in text), E._FATAL)


def codes_that(act: Act) -> frozenset[int]:
    """Return the codes that have this reaction."""
    return frozenset(code for kind in TABLE if kind.act is act for code in kind.codes)


def markdown() -> str:
    """Return the table as in docs/reliability.md."""
    lines = ["| the broker, or the client library, says | a worker | |", "|---|---|---|"]
    for kind in TABLE:
        names = ", ".join(f"`{E(code).name()}`" for code in kind.codes)
        lines.append(f"| {names} | {kind.act} | {kind.says} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
