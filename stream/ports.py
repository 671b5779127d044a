"""The seams between the worker and a log of records: what is read, what is written, who may fail.

`stream.brokers` has the real ones, `tests.fakes.memory_log` a log in memory. The worker follows one
topic, so a partition is a plain number here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

Headers = tuple[tuple[str, bytes | None], ...]
NO_TIMESTAMP = -1


class PortError(Exception):
    """Root of what a source or a sink raises."""


class CommitRefused(PortError):
    """The broker says that we no longer own what we tried to commit."""


class LogUnavailable(PortError):
    """The log cannot be reached for now; nothing is known to have happened. Retry."""


class DeliveryFailed(PortError):
    """Some records handed to the sink were not acknowledged; they may or may not be in the log."""


class Record(Struct, frozen=True):
    """One record as read. `timestamp_ms` is broker time, -1 where the log has none."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Outgoing(Struct, frozen=True):
    """One record to write; the partition follows from the key (murmur2, like every producer)."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class Start:
    """Where an assigned partition is read from.

    `committed` is the group's offset there, -1 for none; `low` the first offset still in the log;
    `note` what was committed beside the offset.
    """

    committed: int
    low: int = 0
    note: str = ""

    @property
    def beginning(self) -> bool:
        """Whether reading starts at the very first record the partition ever held."""
        return self.committed < 0 and self.low == 0

    @property
    def gap(self) -> bool:
        """Whether retention took records that the group had not read."""
        return 0 <= self.committed < self.low


class Assignments(Protocol):
    """Told by the source, from inside `poll` only, on the thread that polls."""

    def assigned(self, starts: Mapping[int, Start]) -> None:
        """These partitions are ours from now on."""
        ...

    def revoked(self, partitions: Sequence[int]) -> None:
        """These are about to leave: last moment to commit."""
        ...

    def lost(self, partitions: Sequence[int]) -> None:
        """These already belong to somebody else: a commit would be refused."""
        ...


class Source(Protocol):
    """A group member that reads one topic. Used by one thread only."""

    @property
    def topic_id(self) -> str:
        """The topic's id, which tells a recreated topic apart; the zero UUID where unknown."""
        ...

    def subscribe(self, assignments: Assignments) -> None:
        """Join the group; assignments arrive in `poll`."""
        ...

    def poll(self, max_records: int, timeout_s: float) -> list[Record]:
        """Return what is there, in log order per partition; wait at most `timeout_s` for a first.

        Only records of partitions owned when it returns. Raises `LogUnavailable` on a fault that
        will not heal by itself.
        """
        ...

    def pause(self, partitions: Sequence[int]) -> None:
        """Return nothing of these partitions until `resume`; membership is kept by polling."""
        ...

    def resume(self, partitions: Sequence[int]) -> None:
        """Undo `pause`."""
        ...

    def seek(self, partition: int, offset: int) -> None:
        """Read this partition on from `offset`."""
        ...

    def commit(self, offsets: Mapping[int, int], notes: Mapping[int, str]) -> None:
        """Commit next offsets, each with a note for whoever is assigned the partition next.

        Waits for the broker. Raises `CommitRefused` or `LogUnavailable`.
        """
        ...

    def lag(self) -> Mapping[int, int]:
        """Records not read yet, by owned partition; may ask about paused ones for a moment."""
        ...

    def reachable(self) -> bool:
        """Whether the log answered last time; may ask again, for at most a second."""
        ...

    def close(self) -> None:
        """Leave the group; idempotent. Partitions still held are revoked first."""
        ...


class Sink(Protocol):
    """Writes records. Used by one thread only."""

    def produce(self, records: Sequence[Outgoing]) -> None:
        """Hand records over in order; they are durable only after `flush`."""
        ...

    def flush(self, timeout_s: float) -> bool:
        """Wait until all is acknowledged; false when `timeout_s` passed first.

        Raises `DeliveryFailed` when a record was given up; the others are settled then.
        """
        ...

    def close(self) -> None:
        """Release connections; idempotent."""
        ...


class Transactions(Protocol):
    """Writes records and commits offsets in one. Used by one thread only."""

    def commit(
        self, records: Sequence[Outgoing], offsets: Mapping[int, int], notes: Mapping[int, str]
    ) -> None:
        """Write all records and commit the offsets (as `Source.commit` does), or do nothing at all.

        Blocks. Raises `CommitRefused`, `LogUnavailable` or `DeliveryFailed` where nothing was done.
        """
        ...


class LogReader(Protocol):
    """Reads one topic at will, beside the group: nothing is committed. Used by one thread only.

    Every call may raise `LogUnavailable`.
    """

    def first(self, partition: int) -> int:
        """The first offset still in the log."""
        ...

    def at(self, partition: int, time_ms: int) -> int:
        """The first offset whose timestamp is `time_ms` or later; the log's end if there is none.

        An offset before it where the log has no timestamps.
        """
        ...

    def read(self, partition: int, first: int, end: int) -> Iterator[list[Record]]:
        """The records from offset `first` up to `end` (not included), in log order, in portions.

        A portion may be empty: what is waited for is waited for in short times.
        """
        ...

    def close(self) -> None:
        """Release connections; idempotent."""
        ...
