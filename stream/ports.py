"""The seams between the worker and a log of records: records, readers, writers and their errors.

`stream.brokers` implements them for Kafka, `tests.fakes.memory_log` in memory. The worker follows
one topic, so a partition is a plain number here.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from msgspec import Struct

Headers = tuple[tuple[str, bytes | None], ...]
NO_TIMESTAMP = -1
Stretch = tuple[int, int]
"""Offsets of a partition: the first, and the one after the last."""


class PortError(Exception):
    """Root of the errors of a source, a sink or a reader."""


class CommitRefused(PortError):
    """The broker reports that this member no longer owns what it tried to commit."""


class LogUnavailable(PortError):
    """The log cannot be reached for now; the outcome of the call is unknown. Retry."""


class TopicChanged(PortError):
    """The topic was deleted, made anew or truncated: nothing known of it holds. Fatal.

    The message says what to do.
    """


class DeliveryFailed(PortError):
    """Some records handed to the sink were not acknowledged; they may or may not be in the log."""


class OutputRefused(DeliveryFailed):
    """The broker will not take a record, however often it is sent; the message names the cure."""


class Record(Struct, frozen=True):
    """One record as read. `timestamp_ms` is broker time, -1 where the log has none."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Hole(NamedTuple):
    """Offsets without a record; `until_ms` is the time of the next record."""

    first: int
    end: int
    until_ms: int


class Holes:
    """Finds the offsets without a record in a stretch of one partition's log."""

    def __init__(self, first: int) -> None:
        self.found: list[Hole] = []
        self.next = first  # offset that is read next if the log has no hole there

    def add(self, records: Sequence[Record]) -> None:
        """Add the next records, in log order."""
        if not records:
            return
        if records[-1].offset + 1 - self.next != len(records):
            for record in records:
                self.reach(record.offset, record.timestamp_ms)
                self.next = record.offset + 1
        self.next = records[-1].offset + 1

    def reach(self, offset: int, time_ms: int) -> None:
        """Note that there is no record before `offset`, whose record is of `time_ms`."""
        if offset > self.next:
            self.found.append(Hole(self.next, offset, time_ms))


class Outgoing(Struct, frozen=True):
    """One record to write; the partition follows from the key (murmur2, like every producer)."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Start:
    """The offset an assigned partition is read from.

    `committed` is the group's offset there, -1 for none; `low` the first offset still in the log;
    `note` the metadata committed with the offset.
    """

    committed: int
    low: int = 0
    note: str = ""

    @property
    def beginning(self) -> bool:
        """True when reading starts at the first record the partition ever had."""
        return self.committed < 0 and self.low == 0

    @property
    def gap(self) -> bool:
        """True when retention removed records that the group had not read."""
        return 0 <= self.committed < self.low


class Seen(NamedTuple):
    """The result of a look at the cluster, whoever owns the topic's partitions.

    `fault` says why no broker answers, and is empty where one does; `partitions` are the topic's,
    `waiting` its records beyond the group's committed offsets. None where it is not known.
    """

    fault: str = ""
    partitions: int | None = None
    waiting: int | None = None


class Assignments(Protocol):
    """Callbacks of a source, called from inside `poll` only, on the thread that polls."""

    def assigned(self, starts: Mapping[int, Start]) -> None:
        """Own these partitions from now on."""

    def revoked(self, partitions: Sequence[int]) -> None:
        """Commit what is done of these: they are about to leave."""

    def lost(self, partitions: Sequence[int]) -> None:
        """Forget these: they belong to another member, and a commit would be refused."""


class Source(Protocol):
    """A group member that reads one topic. Used by one thread only."""

    @property
    def topic_id(self) -> str:
        """The topic's id, which tells a recreated topic apart; the zero UUID where unknown."""

    def watch(self, tell: Callable[[Seen], None]) -> None:
        """Look at the cluster every few seconds until `close`, from a thread that calls `tell`."""

    def subscribe(self, assignments: Assignments) -> None:
        """Join the group; assignments arrive in `poll`."""

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """Return the records there are, in log order per partition; wait up to `timeout_s` for one.

        Only records of partitions owned when it returns. Raises `LogUnavailable` on a fault that
        will not heal by itself.
        """

    def pause(self, partitions: Sequence[int]) -> None:
        """Return nothing of these partitions until `resume`; polling maintains the membership."""

    def resume(self, partitions: Sequence[int]) -> None:
        """Undo `pause`."""

    def seek(self, partition: int, offset: int) -> None:
        """Continue to read this partition from `offset`."""

    def commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> None:
        """Commit next offsets, each with a note for the next owner of the partition.

        Waits for the broker. Raises `CommitRefused` or `LogUnavailable`.
        """

    def lag(self) -> Mapping[int, int]:
        """Return the records not read yet, by owned partition; may query the broker briefly.

        Counted from where the partition is read next: after a `seek`, from there.
        """

    def reachable(self) -> bool:
        """Return whether the log answered last time. Does not wait. Raises `TopicChanged`."""

    def close(self) -> None:
        """Leave the group; idempotent. Partitions still owned are revoked first."""


class Sink(Protocol):
    """Writes records. Used by one thread only."""

    def produce(self, records: Sequence[Outgoing]) -> None:
        """Hand records over in order; they are durable only after `flush`."""

    def flush(self, timeout_s: float) -> bool:
        """Wait until all is acknowledged; false when `timeout_s` passed first.

        Raises `DeliveryFailed` when a record was given up; the others are settled then.
        """

    def close(self) -> None:
        """Release connections; idempotent."""


class Transactions(Protocol):
    """Writes records and commits offsets in one. Used by one thread only."""

    def commit(
        self, records: Sequence[Outgoing], offsets: Mapping[int, int], notes: Mapping[int, str]
    ) -> None:
        """Write all records and commit the offsets (as `Source.commit` does), or do nothing at all.

        Blocks. Raises `CommitRefused`, `LogUnavailable` or `DeliveryFailed` where nothing was done.
        """


class LossReader(Protocol):
    """Tells the records that were removed from a log from its other offsets without a record."""

    def lost(self, partition: int, holes: Sequence[Stretch]) -> Sequence[Stretch]:
        """Return the parts of `holes` (ascending) whose records were removed.

        Offsets that no reader sees may also be markers of transactions, or aborted. Raises
        `LogUnavailable`.
        """


class LogReader(LossReader, Protocol):
    """Reads one topic outside of the group: nothing is committed. Used by one thread only.

    Every call may raise `LogUnavailable`.
    """

    def first(self, partition: int) -> int:
        """Return the first offset still in the log."""

    def at(self, partition: int, time_ms: int) -> int:
        """Return the first offset with a timestamp of `time_ms` or later, else the log's end.

        An earlier offset where the log has no timestamps.
        """

    def read(self, partition: int, first: int, end: int) -> Iterator[list[Record]]:
        """Yield the records from offset `first` up to `end` (not included), in log order.

        In portions, which may be empty: waits are short.
        """

    def close(self) -> None:
        """Release connections; idempotent."""


def lost_of(reader: LossReader, partition: int, holes: Sequence[Hole]) -> list[Hole]:
    """Return the parts of `holes` (ascending) whose records were removed from the log.

    Raises `LogUnavailable`.
    """
    lost = reader.lost(partition, [(hole.first, hole.end) for hole in holes])
    ends = [hole.end for hole in holes]
    return [Hole(*part, holes[bisect_right(ends, part[0])].until_ms) for part in lost]
