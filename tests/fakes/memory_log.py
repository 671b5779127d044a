"""A log in memory: topics, partitions, groups' committed offsets and redelivery, without a broker.

Shipped code: tests and replays run the real worker on it. It keeps what a broker promises and no
more: order per partition, an offset per record, committed offsets per group, redelivery from the
last commit to whoever is assigned next.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from stream.ports import (
    Assignments,
    CommitRefused,
    DeliveryFailed,
    Headers,
    Outgoing,
    Record,
    Seen,
    Start,
    Stretch,
)


@dataclass(slots=True)
class LocalLog:
    """All topics of one in-memory broker; records are dropped by raising `low`, or by `remove`."""

    now_ms: Callable[[], int]
    partitions: int = 1
    records: dict[tuple[str, int], list[Record]] = field(default_factory=lambda: defaultdict(list))
    committed: dict[tuple[str, str, int], int] = field(default_factory=dict)
    notes: dict[tuple[str, str, int], str] = field(default_factory=dict)
    low: dict[tuple[str, int], int] = field(default_factory=dict)  # retention took what is below
    # Offsets that hold no record: removed, or a transaction's marker.
    removed: dict[tuple[str, int], set[int]] = field(default_factory=lambda: defaultdict(set))
    markers: dict[tuple[str, int], set[int]] = field(default_factory=lambda: defaultdict(set))

    def append(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        *,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Record:
        """Append one record; the key chooses the partition unless one is named."""
        at = zlib.crc32(key or b"") % self.partitions if partition is None else partition
        log = self.records[topic, at]
        time_ms = self.now_ms() if timestamp_ms is None else timestamp_ms
        record = Record(topic, at, len(log), time_ms, key, value, headers)
        log.append(record)
        return record

    def mark(self, topic: str, partition: int) -> None:
        """Append what ends a transaction: an offset without a record."""
        record = self.append(topic, None, None, partition=partition)
        self.markers[topic, partition].add(record.offset)

    def remove(self, topic: str, partition: int, *offsets: int) -> None:
        """Remove records, as compaction does."""
        self.removed[topic, partition].update(offsets)

    def seen(self, records: Sequence[Record]) -> list[Record]:
        """Return those that a reader sees of these."""
        return [
            r
            for r in records
            if r.offset not in self.removed[r.topic, r.partition]
            and r.offset not in self.markers[r.topic, r.partition]
        ]

    def read(self, topic: str) -> list[Record]:
        """All records of a topic, partition by partition."""
        return [r for p in range(self.partitions) for r in self.records[topic, p]]


class LocalSource:
    """One member of a group on a `LocalLog`; who owns what is said by `assign` and `take_away`."""

    def __init__(
        self, log: LocalLog, topic: str, group: str, *, topic_id: str = "local", first: bool = True
    ) -> None:
        """`first`: take every partition at the first poll."""
        self._log, self._topic, self._group, self._topic_id = log, topic, group, topic_id
        self._pending = tuple(range(log.partitions)) if first else ()
        self._listener: Assignments | None = None
        self._position: dict[int, int] = {}
        self._paused: set[int] = set()

    @property
    def topic_id(self) -> str:
        return self._topic_id

    @property
    def paused(self) -> frozenset[int]:
        """The partitions that are paused now."""
        return frozenset(self._paused)

    def watch(self, tell: Callable[[Seen], None]) -> None:
        """Nothing to look at that could go away."""

    def subscribe(self, assignments: Assignments) -> None:
        self._listener = assignments

    def assign(self, partitions: Sequence[int]) -> None:
        """Give this member partitions; told at once, as inside a poll."""
        assert self._listener is not None, "subscribe first"
        starts: dict[int, Start] = {}
        for p in partitions:
            at = (self._group, self._topic, p)
            committed, low = self._log.committed.get(at, -1), self._log.low.get((self._topic, p), 0)
            self._position[p] = max(committed, low)
            starts[p] = Start(committed, low, self._log.notes.get(at, ""))
        self._listener.assigned(starts)

    def take_away(self, partitions: Sequence[int], *, lost: bool = False) -> None:
        """Revoke partitions, or say that they were lost."""
        assert self._listener is not None, "subscribe first"
        if lost:
            self._forget(partitions)
            self._listener.lost(partitions)
        else:
            self._listener.revoked(partitions)
            self._forget(partitions)

    def _forget(self, partitions: Sequence[int]) -> None:
        for p in partitions:
            self._position.pop(p, None)
            self._paused.discard(p)

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        if self._pending:
            pending, self._pending = self._pending, ()
            self.assign(pending)
        out: list[Record] = []
        for p, position in self._position.items():
            if p not in self._paused:
                log = self._log.records[self._topic, p]
                taken = log[position : position + max_records - len(out)]
                self._position[p] = position + len(taken)
                out += self._log.seen(taken)
        return out

    def pause(self, partitions: Sequence[int]) -> None:
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[int]) -> None:
        self._paused.difference_update(partitions)

    def seek(self, partition: int, offset: int) -> None:
        self._position[partition] = offset

    def commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> None:
        if not offsets.keys() <= self._position.keys():
            raise CommitRefused(f"not ours: {sorted(offsets.keys() - self._position.keys())}")
        for p, offset in offsets.items():
            self._log.committed[self._group, self._topic, p] = offset
            self._log.notes[self._group, self._topic, p] = notes[p]

    def lag(self) -> Mapping[int, int]:
        ends = {p: len(self._log.records[self._topic, p]) for p in self._position}
        return {p: ends[p] - position for p, position in self._position.items()}

    def reachable(self) -> bool:
        return True

    def close(self) -> None:
        held = tuple(self._position)
        if held and self._listener is not None:
            self.take_away(held)


class LocalSink:
    """Appends to a `LocalLog` at flush; `fail_next` gives up that many records first."""

    def __init__(self, log: LocalLog) -> None:
        self._log = log
        self._waiting: list[Outgoing] = []
        self.fail_next = 0

    def produce(self, records: Sequence[Outgoing]) -> None:
        self._waiting += records

    def flush(self, timeout_s: float) -> bool:
        waiting, self._waiting = self._waiting, []
        failed, self.fail_next = waiting[: self.fail_next], 0
        for r in waiting[len(failed) :]:
            self._log.append(r.topic, r.key, r.value, r.headers)
        if failed:
            raise DeliveryFailed(f"{len(failed)} records were not acknowledged")
        return True

    def close(self) -> None:
        self._waiting = []


class LocalTransactions:
    """Appends to a `LocalLog` and commits for a member in one; `fail_next` aborts one first."""

    def __init__(self, log: LocalLog, source: LocalSource) -> None:
        self._log, self._source = log, source
        self.fail_next = False

    def commit(
        self, records: Sequence[Outgoing], offsets: Mapping[int, int], notes: Mapping[int, str]
    ) -> None:
        failed, self.fail_next = self.fail_next, False
        if failed:
            raise DeliveryFailed("the records were not acknowledged")
        self._source.commit(offsets, notes)
        for r in records:
            self._log.append(r.topic, r.key, r.value, r.headers)


class LocalReader:
    """Reads a topic of a `LocalLog` at will."""

    def __init__(self, log: LocalLog, topic: str, *, portion: int = 1_000) -> None:
        self._log, self._topic, self._portion = log, topic, portion

    def first(self, partition: int) -> int:
        return self._log.low.get((self._topic, partition), 0)

    def at(self, partition: int, time_ms: int) -> int:
        records = self._log.records[self._topic, partition]
        there = self._log.seen(records[self.first(partition) :])
        later = (r.offset for r in there if r.timestamp_ms >= time_ms)
        return next(later, len(records))

    def read(self, partition: int, first: int, end: int) -> Iterator[list[Record]]:
        records = self._log.records[self._topic, partition]
        first = max(first, self.first(partition))
        for at in range(first, min(end, len(records)), self._portion):
            yield self._log.seen(records[at : min(at + self._portion, end)])

    def lost(self, partition: int, holes: Sequence[Stretch]) -> list[Stretch]:
        low, removed = self.first(partition), self._log.removed[self._topic, partition]
        offsets = (o for first, end in holes for o in range(first, end))
        return [(o, o + 1) for o in offsets if o < low or o in removed]

    def close(self) -> None:
        """Nothing to release."""
