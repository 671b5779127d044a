"""The seams between the worker and a log of records: records, readers, writers and their errors.

`stream.brokers` implements them for Kafka, `tests.fakes.memory_log` in memory. The worker follows
one topic, so a partition is a plain number here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

Headers = tuple[tuple[str, bytes | None], ...]
NO_TIMESTAMP = -1


class PortError(Exception):
    """Root of the errors of a source, a sink or a reader."""


class CommitRefused(PortError):
    """The broker reports that this member no longer owns what it tried to commit."""


class LogUnavailable(PortError):
    """The log cannot be reached for now; the outcome of the call is unknown. Retry."""


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
        """Return the records not read yet, by owned partition; may query the broker briefly."""

    def reachable(self) -> bool:
        """Return whether the log answered last time; may query it again, for at most a second."""

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


class LogReader(Protocol):
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
