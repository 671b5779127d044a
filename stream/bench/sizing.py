"""Sizes of an installation from its traffic: workers, partitions, memory, Redis, Kafka.

Pure; docs/sizing.md explains it. Constants were measured by the command beside them unless the
comment says that they are assumed; `emotrack bench capacity` states how far the formula is off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

Input = Literal["text", "features"]

KIB, GIB, MB, GB = 1 << 10, 1 << 30, 10**6, 10**9
DAY_S: Final = 86_400.0
LOAD_SHARE: Final = 0.5  # of a worker's rate: 99 % within 250 ms (P8, `emotrack bench pipeline`)
PARTITIONS_A_WORKER: Final = 2  # workers can be doubled before a partition must be added
LEAST_WORKERS: Final = 2  # one may end

# `emotrack bench pipeline`: full queue, one worker, one thread, a free core. Rounded: it printed 63
# to 72 of raw text (shipped PCGNet) and 740 to 1,230 of features (H=200).
RATES: Final[dict[Input, float]] = {"text": 60.0, "features": 1_000.0}
# `emotrack bench rebuild`: records a second, one worker.
REBUILD_RATES: Final[dict[Input, float]] = {"text": 69.0, "features": 7_900.0}
# `emotrack bench state`: in Redis, of arrays of so many bytes; sent for an utterance.
STATE_FIXED, STATE_FACTOR = 1.5 * KIB, 1.125
SENT_FIXED: Final = 0.82 * KIB
# Expired keys that Redis has not removed yet: it looks until a tenth of all keys is left.
# `emotrack bench capacity` saw 9 to 11 % more than what lives.
NOT_YET_REMOVED: Final = 1.1
# `emotrack bench capacity`: bytes of the log a record, its batch's header shared out.
PREDICTION_BYTES: Final = 1_230
ALERT_BYTES: Final = 1_200  # assumed: as a prediction
ALERT_SHARE: Final = 0.13  # 330 alerts of 2,610 utterances: `emotrack bench real`
UTTERANCE_BYTES: Final[dict[Input, int]] = {"text": 350, "features": 1_300}
# `emotrack bench capacity`, model and sentence encoder loaded; a window that its owner caches.
WORKER_BASE: Final = 1.07 * GIB
WINDOW_FIXED, WINDOW_FACTOR = 2 * KIB, 1.0  # assumed; with 10,000 of them it meets P10
CHECKING: Final = 64 << 20  # the log's records while states are checked (docs/reliability.md)


@dataclass(frozen=True, slots=True)
class StateSizes:
    """Bytes of a model's arrays an utterance of the window, a conversation, a speaker."""

    row: int
    conversation: int
    speaker: int
    window: int  # utterances

    def stored(self, utterances: float, speakers: int) -> float:
        """Return the bytes of a conversation's arrays after so many utterances."""
        rows = min(utterances, self.window)
        return rows * self.row + self.conversation + min(speakers, utterances) * self.speaker

    @property
    def written(self) -> int:
        """Bytes of arrays that one utterance writes."""
        return self.row + self.conversation + self.speaker


def pcgnet_sizes(hidden: int = 128, window: int = 10) -> StateSizes:
    """Return those of a PCGNet; the shipped one has 128 hidden units."""
    return StateSizes(12 * hidden + 10, 4 * hidden, 18 * hidden + 14, window)


def hrg_ssa_sizes(window: int = 8) -> StateSizes:
    """Return those of the shipped HRG-SSA."""
    return StateSizes(5_380, 0, 398, window)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Conversations that are live at the same time, each of the same length and pace."""

    conversations: int
    utterances_per_minute: float  # of one conversation, all speakers together
    call_minutes: float
    input: Input = "text"
    speakers: int = 2
    utterance_bytes: int | None = None  # on the log; none: as measured
    alert_share: float = ALERT_SHARE

    @property
    def per_s(self) -> float:
        """Utterances a second of all conversations."""
        return self.conversations * self.utterances_per_minute / 60

    @property
    def utterances(self) -> float:
        """Utterances of a whole conversation."""
        return max(1.0, self.utterances_per_minute * self.call_minutes)

    def ended_within(self, seconds: float) -> float:
        """Return how many conversations ended in the last `seconds`."""
        return self.conversations * seconds / (60 * self.call_minutes)


@dataclass(frozen=True, slots=True)
class Plan:
    """Choices of an installation: speed of a worker, times of keeping, replicas."""

    rate: float  # utterances a second of one worker, full queue
    rebuild_rate: float  # records a second of one worker, states computed from the log
    load_share: float = LOAD_SHARE
    idle_s: float = 900.0
    cache_conversations: int = 20_000  # EMOTRACK_CACHE_CONVERSATIONS
    retention_days: float = 7.0
    replication: int = 3


@dataclass(frozen=True, slots=True)
class Needs:
    """Results of the formula, as `emotrack capacity` prints them.

    GB and MB are 10^9 and 10^6 bytes, GiB 2^30.
    """

    utterances_per_s: float
    workers: int
    cores: int  # of the workers; Kafka and Redis have their own
    partitions: int
    worker_memory_gib: float  # resident, of each
    conversations_in_redis: int
    redis_gb: float
    redis_mb_per_s: float
    kafka_mb_per_s: float  # written by producers and workers, before replication
    disk_gb: float  # of all brokers together
    rebuild_records: int  # if Redis is lost
    standstill_s: float  # until the last partition answers again
    caught_up_s: float  # until what came meanwhile is answered too
    changed_records: int  # if model or window change
    changed_s: float  # until the last live conversation goes on; the others go on meanwhile


def default_plan(input: Input) -> Plan:
    """Return the plan of the measured rates."""
    return Plan(RATES[input], REBUILD_RATES[input])


def needs(traffic: Traffic, sizes: StateSizes, plan: Plan) -> Needs:
    """Return what `traffic` needs. Section numbers are those of docs/sizing.md."""
    workers = max(LEAST_WORKERS, math.ceil(traffic.per_s / (plan.load_share * plan.rate)))
    per_record = traffic.utterance_bytes or UTTERANCE_BYTES[traffic.input]
    logged = traffic.per_s * (per_record + PREDICTION_BYTES + traffic.alert_share * ALERT_BYTES)
    lost = rebuild_records(traffic, plan.idle_s)
    standstill = lost / (plan.rebuild_rate * workers)
    changed = live_records(traffic)
    busy = traffic.per_s / (plan.rate * workers)
    return Needs(
        utterances_per_s=traffic.per_s,
        workers=workers,
        cores=workers,
        partitions=PARTITIONS_A_WORKER * workers,
        worker_memory_gib=worker_bytes(traffic, sizes, plan, workers) / GIB,
        conversations_in_redis=round(traffic.conversations + traffic.ended_within(2 * plan.idle_s)),
        redis_gb=redis_bytes(traffic, sizes, plan.idle_s) / GB,
        redis_mb_per_s=traffic.per_s * (sizes.written + SENT_FIXED) / MB,
        kafka_mb_per_s=logged / MB,
        disk_gb=logged * plan.retention_days * DAY_S * plan.replication / GB,
        rebuild_records=round(lost),
        standstill_s=standstill,
        caught_up_s=standstill / (1 - busy) if busy < 1 else math.inf,
        changed_records=round(changed),
        changed_s=changed / (plan.rebuild_rate * workers) / (1 - busy) if busy < 1 else math.inf,
    )


def redis_bytes(traffic: Traffic, sizes: StateSizes, idle_s: float) -> float:
    """Return the bytes of all states: live ones, and those that ended within 2 x `idle_s`."""
    ended = traffic.ended_within(2 * idle_s)
    whole = sizes.stored(traffic.utterances, traffic.speakers)
    arrays = ended * whole + traffic.conversations * mean_stored(traffic, sizes)
    living = (ended + traffic.conversations) * STATE_FIXED + STATE_FACTOR * arrays
    return NOT_YET_REMOVED * living


def mean_stored(traffic: Traffic, sizes: StateSizes) -> float:
    """Return the bytes of a live conversation's arrays, in the mean over its utterances."""
    last = math.ceil(traffic.utterances)
    growing = min(last, max(sizes.window, traffic.speakers))  # then it is of one size
    grown = sum(sizes.stored(n, traffic.speakers) for n in range(1, growing + 1))
    return (grown + (last - growing) * sizes.stored(last, traffic.speakers)) / last


def worker_bytes(traffic: Traffic, sizes: StateSizes, plan: Plan, workers: int) -> float:
    """Return the resident bytes of one worker, with the windows it saved within `idle_s`."""
    owned = (traffic.conversations + traffic.ended_within(plan.idle_s)) / workers
    cached = min(owned, plan.cache_conversations)
    window = sizes.stored(traffic.utterances, traffic.speakers) * WINDOW_FACTOR + WINDOW_FIXED
    return WORKER_BASE + CHECKING + cached * window


def rebuild_records(traffic: Traffic, idle_s: float) -> float:
    """Return the utterances, from the beginning of each session, of who spoke within `idle_s`."""
    return live_records(traffic) + traffic.ended_within(idle_s) * traffic.utterances


def live_records(traffic: Traffic) -> float:
    """Return the utterances so far of the live conversations, half over in the mean."""
    return traffic.conversations * (traffic.utterances + 1) / 2
