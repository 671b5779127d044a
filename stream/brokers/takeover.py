"""The time until another worker takes over a partition, and the setting that decides it.

By Kafka 4's own protocol (KIP-848) the *broker* decides how long a silent member is waited for, and
how often members ask for their assignment: 45 s and 5 s where nothing is set. A group may have less
(its *group config*), but not less than the broker allows, and where nothing is set that is as much.
By the classic protocol each member brings its own session. So `group_protocol` auto takes the new
one where its session is at most `session_timeout_ms`, else the classic one with that session.
A group whose members joined by the classic one stays with it until all have left: the broker lets
no member of the other kind in (it does not understand librdkafka's cooperative assignments), though
it lets classic members into a group of the new kind.

On kafka-python, so that the base install can tell it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from shlex import quote
from typing import Any, Final, Literal

import kafka.errors
from kafka.admin import ConfigResource

from stream.brokers.kafka_admin import connected_admin
from stream.brokers.topic_look import GROUP, configs, who
from stream.settings import Settings

SESSION: Final = "consumer.session.timeout.ms"  # of a group's config; `group.` of a broker's
HEARTBEAT: Final = "consumer.heartbeat.interval.ms"
HEARTBEAT_MS: Final = 1_000  # ours: a member learns of a new assignment with its next heartbeat
HANDOVER_S: Final = 1  # from there to the first answer
DEFAULTS: Final = (45_000, 5_000)  # session and heartbeat of Kafka's own protocol
ASK_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Takeover:
    """The protocol that the workers of a group join by, and the times it takes."""

    protocol: Literal["consumer", "classic"]
    session_ms: int
    heartbeat_ms: int
    why: str
    cure: str | None = None  # where it takes longer than `session_timeout_ms` wants
    revoke_ms: int = 0  # how long the others may take to give up what they have (Faust)

    @property
    def killed_s(self) -> int:
        """The longest silence of a killed worker's partitions."""
        return math.ceil(self.session_ms / 1000) + self.stopped_s

    @property
    def stopped_s(self) -> int:
        """The longest silence of the partitions of a worker that was stopped by SIGTERM."""
        return math.ceil((self.heartbeat_ms + self.revoke_ms) / 1000) + HANDOVER_S

    @property
    def says(self) -> str:
        """Both times, and where they come from, in a sentence."""
        return (
            f"a killed worker's partitions are silent for up to {self.killed_s} s, a stopped one's "
            f"for up to {self.stopped_s} s: {self.why}"
        )


@dataclass(frozen=True, slots=True)
class Offer:
    """The times of the new protocol for one group; `none` says why it is not there, or not told."""

    session_ms: int = 0
    heartbeat_ms: int = 0
    none: str = ""
    classic: bool = False  # members of the group joined by the classic protocol


def classic_heartbeat_ms(session_ms: int) -> int:
    """Return how often a classic member shows that it is there."""
    return max(1, min(HEARTBEAT_MS, session_ms // 4))


def ask(settings: Settings) -> Takeover:
    """Return how the workers of these settings join, and their times.

    Raises `BrokerUnreachable` or `AccessRefused`.
    """
    if settings.runtime == "faust":
        session_ms = settings.session_timeout_ms
        why = f"Faust; EMOTRACK_SESSION_TIMEOUT_MS={session_ms}"
        return Takeover("classic", session_ms, session_ms // 4, why, revoke_ms=session_ms // 2)
    if settings.group_protocol == "classic" or settings.mock_broker:
        return _classic(settings, "the classic protocol")
    with connected_admin(settings.bootstrap, ASK_S, settings.security, current=True) as admin:
        return judge(settings, _offer(admin, settings))


def judge(settings: Settings, offer: Offer) -> Takeover:
    """Return how workers join where the broker offers this; pure."""
    at_most = settings.session_timeout_ms
    if settings.group_protocol == "auto":
        if offer.none:
            return _classic(settings, f"the classic protocol, since {offer.none}")
        if offer.classic:
            stays = "the group's workers joined by it, and it changes only when all have stopped"
            return _classic(settings, f"the classic protocol, since {stays}")
        if offer.session_ms > at_most:
            theirs = f"Kafka 4's own would be {offer.session_ms / 1000:g} s here"
            return _classic(settings, f"the classic protocol, since the session by {theirs}")
    if offer.none:
        why = f"Kafka 4's protocol, its defaults assumed, since {offer.none}"
        return Takeover("consumer", *DEFAULTS, why, _cure(settings))
    why = f"Kafka 4's protocol, {SESSION}={offer.session_ms} and {HEARTBEAT}={offer.heartbeat_ms}"
    cure = _cure(settings) if offer.session_ms > at_most or offer.classic else None
    if offer.classic:
        why += ", which the broker refuses while the group has workers of the classic protocol"
    return Takeover("consumer", offer.session_ms, offer.heartbeat_ms, why, cure)


def prepare(settings: Settings) -> list[str]:
    """Set the group's session and heartbeat where they are longer than ours; say what came of it.

    Says nothing where nothing is to be set. Raises `BrokerUnreachable` or `AccessRefused`.
    """
    if settings.group_protocol == "classic" or settings.runtime == "faust" or settings.mock_broker:
        return []
    with connected_admin(settings.bootstrap, ASK_S, settings.security, current=True) as admin:
        offer = _offer(admin, settings)
        if offer.none:
            return []
        there = {SESSION: offer.session_ms, HEARTBEAT: offer.heartbeat_ms}
        ours = {SESSION: settings.session_timeout_ms, HEARTBEAT: HEARTBEAT_MS}
        return [
            _set(admin, settings, name, ours[name]) for name in ours if there[name] > ours[name]
        ]


def _set(admin: Any, settings: Settings, name: str, value: int) -> str:
    """Set one setting of the group; say that it is set, or what is in the way."""
    group = settings.group
    resource = ConfigResource("GROUP", group, {name: str(value)})
    answer = admin.alter_configs([resource], raise_on_unknown=False)["group"][group]
    if answer == "OK":
        return f"group {group}: {name}={value} is set"
    if "AuthorizationFailed" in answer:
        right = f"{who(settings.security)} lacks ALTER_CONFIGS on group {group}"
        return f"group {group}: {name}={value} is not set, since {right}"
    least = name.replace("consumer.", "group.consumer.min.")
    return (
        f"group {group}: {name}={value} is not set, since the broker refuses it ({answer}): it "
        f"needs {least}={value} on every broker, which Kafka reads when it starts"
    )


def _offer(admin: Any, settings: Settings) -> Offer:
    """Ask the broker for the new protocol and the group's times by it."""
    try:
        _, level = admin.describe_features().get("group.version", {}).get("finalized", (0, 0))
    except kafka.errors.IncompatibleBrokerVersion:  # before Kafka 2.4
        level = 0
    if level < 1:
        return Offer(none="this broker has no other")
    found = configs(admin, GROUP, [settings.group])[settings.group]
    if isinstance(found, kafka.errors.GroupAuthorizationFailedError):
        right = f"{who(settings.security)} lacks DESCRIBE_CONFIGS on group {settings.group}"
        return Offer(none=f"{right} (docs/security.md)")
    if isinstance(found, kafka.errors.KafkaError):
        return Offer(none=f"the broker does not tell a group's settings ({found})")
    classic = _has_classic_members(admin, settings.group)
    return Offer(int(found[SESSION]), int(found[HEARTBEAT]), classic=classic)


def _has_classic_members(admin: Any, group: str) -> bool:
    """Return whether the group is a classic one that is not empty."""
    until = time.monotonic() + ASK_S
    while True:
        try:
            groups = admin.list_groups()
        except kafka.errors.CoordinatorLoadInProgressError:  # the broker has just started
            if time.monotonic() > until:
                raise
            time.sleep(0.1)
        else:
            return any(
                found["group_id"] == group
                and found["group_type"].lower() == "classic"
                and found["group_state"] not in ("Empty", "Dead")
                for found in groups
            )


def _classic(settings: Settings, why: str) -> Takeover:
    session_ms = settings.session_timeout_ms
    heartbeat_ms = classic_heartbeat_ms(session_ms)
    return Takeover(
        "classic", session_ms, heartbeat_ms, f"{why}; EMOTRACK_SESSION_TIMEOUT_MS={session_ms}"
    )


def _cure(settings: Settings) -> str:
    """Return what to do where the new protocol is asked for and its session is long."""
    flags = f"--group {quote(settings.group)} --bootstrap {quote(settings.bootstrap)}"
    return (
        "leave EMOTRACK_GROUP_PROTOCOL at auto, which joins by the classic protocol here, with "
        f"EMOTRACK_SESSION_TIMEOUT_MS ({settings.session_timeout_ms}); or shorten the group's "
        f"session with `emotrack topics fix {flags}`, which says what the broker must allow first"
    )
