"""The settings of a topic that promises rest on, in one table, and what is wrong with a topic's.

A setting of the four topics either *breaks* a promise (the worker refuses to start) or *weakens*
one (it warns). `RULES` is the table; what is not in it does not matter to a promise:

- `compression.type`: any; every client of ours reads gzip, snappy, lz4 and zstd.
- partitions: any number, and the four topics need not have the same. A conversation's answers are
  on one partition of each topic, because each is keyed by the conversation. One alone is worth a
  remark (`emotrack doctor`): as many workers answer as the utterances topic has partitions.
- time of predictions, alerts and dead letters: either; readers take theirs from the event.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Final, Literal, Self

from state.window import Recurrence
from stream.events.messages import TopicNames
from stream.settings import Settings

DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
OUTAGE_MS: Final = 8 * HOUR_MS  # a night in which nobody answers: the log keeps what waits
REPLICAS: Final = 3  # of each partition, where there are as many brokers
MIB: Final = 1 << 20
REPLICAS_OF: Final = "replicas"  # no setting of a topic, but ruled like one
STAMP: Final = "message.timestamp.type"
LARGEST_ANSWER: Final = 64 << 10  # ids of 256 bytes and a trace, escaped, are less
FOREVER: Final = -1

Role = Literal["utterances", "predictions", "shift_alerts", "dead_letters"]
ROLES: Final[tuple[Role, ...]] = ("utterances", "predictions", "shift_alerts", "dead_letters")
ANSWERS: Final = frozenset(ROLES[1:])
ALL: Final = frozenset(ROLES)
_USUAL: Final = Recurrence()


@dataclass(frozen=True, slots=True)
class Needs:
    """The settings of the worker that a topic's settings must go with."""

    idle_s: float = _USUAL.idle_s
    max_session_s: float = _USUAL.max_session_s
    allow_create_time: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the needs of a worker with these settings."""
        return cls(
            settings.idle_s or _USUAL.idle_s,
            settings.max_session_s or _USUAL.max_session_s,
            settings.allow_create_time,
        )

    @property
    def session_ms(self) -> int:
        """The longest stretch of the log that a state is computed from, and an hour to do it."""
        return int((self.max_session_s + self.idle_s) * 1000) + HOUR_MS

    @property
    def kept_ms(self) -> int:
        """The time that utterances stay in the log at least: a session, and an outage."""
        return self.session_ms + OUTAGE_MS


@dataclass(frozen=True, slots=True)
class Found:
    """One topic as the broker describes it."""

    role: Role
    config: Mapping[str, str]
    replicas: int = 1  # of its partition with the fewest
    brokers: int = 1
    in_sync: int = 1  # of its partition with the fewest

    def number(self, name: str, default: int) -> int:
        """Return a setting as a number."""
        text = self.config.get(name, "")
        return int(text) if text.lstrip("-").isdigit() else default

    def lasting(self, name: str) -> int:
        """Return a limit where -1 means none."""
        limit = self.number(name, FOREVER)
        return 1 << 62 if limit == FOREVER else limit


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table: where `fits` is false, the promise that `why` names is not kept."""

    setting: str
    roles: frozenset[Role]
    breaks: bool
    fits: Callable[[Found, Needs], bool]
    cure: Callable[[Found, Needs], str | None]  # the value to set; None: no setting cures it
    why: str
    instead: str = ""  # another way out


@dataclass(frozen=True, slots=True)
class Fault:
    """One setting of one topic that breaks or weakens a promise."""

    topic: str
    setting: str
    breaks: bool
    says: str
    cure: str | None


def _fixed(value: object) -> Callable[[Found, Needs], str]:
    return lambda _found, _needs: str(value)


def _retention(found: Found, needs: Needs) -> str:
    return str(max(7 * DAY_MS, needs.kept_ms))


def replicas_for(brokers: int) -> int:
    """Return how many replicas a partition should have on so many brokers."""
    return max(1, min(REPLICAS, brokers))


def in_sync_for(replicas: int) -> int:
    """Return how many replicas must have a record before it is acknowledged.

    Two of three: one broker may be away, and what was acknowledged is still on another one.
    """
    return 2 if replicas >= REPLICAS else 1


def _deletes(found: Found, _needs: Needs) -> bool:
    return found.config.get("cleanup.policy", "delete") == "delete"


_U: Final = frozenset[Role]({"utterances"})
_D: Final = frozenset[Role]({"dead_letters"})
RULES: Final = (
    Rule(
        "cleanup.policy",
        _U,
        breaks=True,
        fits=_deletes,
        cure=_fixed("delete"),
        why="compaction removes all but the last utterance of a conversation, and states are "
        "computed from the log",
    ),
    Rule(
        "cleanup.policy",
        _D,
        breaks=True,
        fits=_deletes,
        cure=_fixed("delete"),
        why="a compacted topic refuses a dead letter without a key, and its partition would stand "
        "still",
    ),
    Rule(
        "cleanup.policy",
        frozenset({"predictions", "shift_alerts"}),
        breaks=False,
        fits=_deletes,
        cure=_fixed("delete"),
        why="compaction removes all but the last answer of a conversation",
    ),
    Rule(
        STAMP,
        _U,
        breaks=True,
        fits=lambda t, n: n.allow_create_time or t.config.get(STAMP) == "LogAppendTime",
        cure=_fixed("LogAppendTime"),
        why="sessions and latencies need broker time, LogAppendTime",
        instead="or accept producer time with EMOTRACK_ALLOW_CREATE_TIME=true",
    ),
    Rule(
        "retention.ms",
        _U,
        breaks=True,
        fits=lambda t, n: t.lasting("retention.ms") >= 2 * n.idle_s * 1000,
        cure=_retention,
        why="utterances would leave the log within a session's pause (twice EMOTRACK_IDLE_S)",
    ),
    Rule(
        "retention.ms",
        _U,
        breaks=False,
        fits=lambda t, n: t.lasting("retention.ms") >= n.kept_ms,
        cure=_retention,
        why="a whole session (EMOTRACK_MAX_SESSION_S and EMOTRACK_IDLE_S), an hour and an outage "
        "of 8 hours must fit, else utterances leave the log unanswered, or a rebuilt context is "
        "truncated",
    ),
    Rule(
        "retention.bytes",
        _U,
        breaks=False,
        fits=lambda t, _: t.number("retention.bytes", FOREVER) == FOREVER,
        cure=_fixed(FOREVER),
        why="many utterances at once push out the beginning of sessions before their time",
    ),
    Rule(
        "retention.ms",
        ANSWERS,
        breaks=False,
        fits=lambda t, _: t.lasting("retention.ms") >= HOUR_MS,
        cure=_fixed(7 * DAY_MS),
        why="answers leave within an hour, maybe before they are read",
    ),
    Rule(
        "max.message.bytes",
        _U,
        breaks=False,
        fits=lambda t, _: t.number("max.message.bytes", MIB) >= MIB,
        cure=_fixed(MIB),
        why="utterances of up to 1 MiB are allowed, and the broker refuses larger ones than this",
    ),
    Rule(
        "max.message.bytes",
        frozenset({"predictions", "shift_alerts"}),
        breaks=True,
        fits=lambda t, _: t.number("max.message.bytes", MIB) >= LARGEST_ANSWER,
        cure=_fixed(MIB),
        why="an answer may have 64 KiB; one that the broker refuses stops its partition",
    ),
    Rule(
        "max.message.bytes",
        _D,
        breaks=True,
        fits=lambda t, _: t.number("max.message.bytes", 2 * MIB) >= 2 * MIB,
        cure=_fixed(2 * MIB),
        why="a dead letter holds a whole record and may have 2 MiB; one that the broker refuses "
        "stops its partition",
    ),
    Rule(
        "min.insync.replicas",
        ALL,
        breaks=True,
        fits=lambda t, _: t.number("min.insync.replicas", 1) <= t.replicas,
        cure=lambda t, _: str(max(1, t.replicas - 1)),
        why="there are fewer replicas than that, so nothing can be written",
    ),
    Rule(
        "min.insync.replicas",
        ALL,
        breaks=False,
        fits=lambda t, _: t.number("min.insync.replicas", 1) >= in_sync_for(t.replicas),
        cure=lambda t, _: "2" if t.in_sync >= 2 else None,  # else no answer could be written
        why="what one broker alone has acknowledged is lost with it",
    ),
    Rule(
        "unclean.leader.election.enable",
        ALL,
        breaks=False,
        fits=lambda t, _: (
            t.replicas < 2 or t.config.get("unclean.leader.election.enable", "false") == "false"
        ),
        cure=_fixed("false"),
        why="a replica that lacks acknowledged records may become the leader",
    ),
    Rule(
        REPLICAS_OF,
        ALL,
        breaks=False,
        fits=lambda t, _: t.replicas >= replicas_for(t.brokers),
        cure=lambda t, _: str(replicas_for(t.brokers)),
        why="the cluster has brokers for more; with one replica the topic is gone with its broker, "
        "with two it has no second copy while a broker is away",
    ),
    Rule(
        "message.timestamp.before.max.ms",
        ANSWERS,
        breaks=False,
        fits=lambda t, _: (
            t.config.get(STAMP) == "LogAppendTime"
            or t.lasting("message.timestamp.before.max.ms") >= HOUR_MS
        ),
        cure=_fixed((1 << 63) - 1),
        why="answers of a worker whose clock is behind are refused",
    ),
    Rule(
        "message.timestamp.after.max.ms",
        ANSWERS,
        breaks=False,
        fits=lambda t, _: (
            t.config.get(STAMP) == "LogAppendTime"
            or t.lasting("message.timestamp.after.max.ms") >= HOUR_MS
        ),
        cure=_fixed(HOUR_MS),
        why="answers of a worker whose clock is ahead are refused",
    ),
)


def faults_of(name: str, found: Found, needs: Needs) -> list[Fault]:
    """Return what is wrong with one topic, by setting; the first rule of a setting counts.

    Where its settings may not be seen (`config` is empty), only its replicas are judged.
    """
    faults: dict[str, Fault] = {}
    for rule in RULES:
        if found.role not in rule.roles or rule.setting in faults or rule.fits(found, needs):
            continue
        if not found.config and rule.setting != REPLICAS_OF:
            continue
        value = found.replicas if rule.setting == REPLICAS_OF else found.config.get(rule.setting)
        says = f"topic {name} has {rule.setting}={value}: {rule.why}"
        if rule.instead:
            says += f" ({rule.instead})"
        cure = rule.cure(found, needs)
        faults[rule.setting] = Fault(name, rule.setting, rule.breaks, says, cure)
    return list(faults.values())


def curing(faults: Sequence[Fault], bootstrap: str, prefix: str) -> str:
    """Return the command that cures these faults, in a sentence."""
    at = f"--bootstrap {quote(bootstrap)} --topic-prefix {quote(prefix)}"
    if wanted := max((f.cure or "" for f in faults if f.setting == REPLICAS_OF), default=""):
        return (  # it sets the others, too
            f"add replicas with `emotrack topics fix --replication {wanted} {at}`, which copies "
            "the topics to more brokers"
        )
    parts = []
    if any(fault.cure is not None for fault in faults):
        parts.append(f"set what is needed with `emotrack topics fix {at}`")
    if waiting := [fault.topic for fault in faults if fault.cure is None]:
        parts.append(
            f"bring back the brokers that hold {', '.join(waiting)}, so that two replicas are in "
            f"sync, and run `emotrack topics fix {at}`"
        )
    return "; ".join(parts)


def role_of(name: str, names: TopicNames) -> Role:
    """Return what a topic is for."""
    return next(role for role in ROLES if getattr(names, role) == name)
