"""What a worker knows of the partitions it owns: fence token, watermark, committed offset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from stream.pipeline import Lease
from stream.ports import Start
from stream.watermark import Watermark


@dataclass(slots=True)
class Owned:
    """One assigned partition."""

    start: Start
    assigned_at: float  # monotonic seconds
    token: int | None = None  # None: not claimed yet, nothing of it may be worked on
    disputed: bool = False  # the broker or a fence said it is not ours: ask before claiming
    watermark: Watermark = field(default_factory=Watermark)
    committed: int = -1

    @property
    def resume_at(self) -> int:
        """Where reading starts again when what is in flight is dropped."""
        return max(self.committed, self.start.low)

    def lease(self, now: float, idle_s: float) -> Lease:
        """What a step may do now. Raises `ValueError` while unclaimed."""
        if self.token is None:
            raise ValueError("a partition must be claimed before it is worked on")
        # Keys live for 2 x idle_s: after that, a missing one may be one we wrote ourselves.
        young = now - self.assigned_at < 2 * idle_s
        return Lease(self.token, self.committed, self.start.beginning and young)


class Partitions:
    """The assigned partitions of one worker."""

    def __init__(self) -> None:
        self._owned: dict[int, Owned] = {}

    def __contains__(self, partition: object) -> bool:
        return partition in self._owned

    def __getitem__(self, partition: int) -> Owned:
        return self._owned[partition]

    def __iter__(self) -> Iterator[int]:
        return iter(self._owned)

    def __len__(self) -> int:
        return len(self._owned)

    def add(self, partition: int, start: Start, now: float) -> None:
        """A partition was assigned."""
        self._owned[partition] = Owned(start, now, committed=start.committed)

    def remove(self, partitions: Iterable[int]) -> None:
        """Partitions have left."""
        for partition in partitions:
            self._owned.pop(partition, None)

    def restart(self, partition: int) -> int:
        """Forget what is in flight and the claim; return the offset to read on from."""
        owned = self._owned[partition]
        owned.watermark, owned.token, owned.disputed = Watermark(), None, True
        return owned.resume_at

    def unclaimed(self) -> set[int]:
        """Partitions that may not be worked on yet."""
        return {p for p, owned in self._owned.items() if owned.token is None}

    def leases(self, now: float, idle_s: float) -> Mapping[int, Lease]:
        """What a step may do, for each claimed partition."""
        claimed = {p: o for p, o in self._owned.items() if o.token is not None}
        return {p: owned.lease(now, idle_s) for p, owned in claimed.items()}

    def committable(self, partitions: Iterable[int] | None = None) -> dict[int, int]:
        """Next offsets to commit, where there is something new."""
        wanted = self._owned if partitions is None else [p for p in partitions if p in self._owned]
        offsets: dict[int, int] = {}
        for partition in wanted:
            offset = self._owned[partition].watermark.committable()
            if offset is not None:
                offsets[partition] = offset
        return offsets
