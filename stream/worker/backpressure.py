"""Decide which partitions are read, and how long the loop waits. Pure.

A record that is not read costs nothing: it stays in the log. So whatever keeps the worker from
answering ends in a pause, while polling, and with it membership of the group, continues.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

IDLE_POLL_S: Final = 0.1  # how long an idle worker waits for a record, and so for a stop


@dataclass(slots=True)
class Backpressure:
    """Water marks of the queue, a share of it for each partition, and the time of the next try.

    `now` is any monotonic clock in seconds, the same one in each call.
    """

    high_water: int  # queued records that pause all reading
    low_water: int  # queued records that resume it
    retry_s: float  # wait between tries of a server that is away
    paused: frozenset[int] = frozenset()
    _full: bool = False
    _ahead: set[int] = field(default_factory=set)  # partitions over their share of the queue
    _retry_at: float = 0.0

    def balance(
        self,
        depths: Mapping[int, int],
        *,
        owned: Collection[int],
        unworkable: Collection[int],
        pending: bool,
    ) -> tuple[list[int], list[int]]:
        """Return the partitions to pause and those to resume.

        `depths` are queued records by owned partition; `unworkable` are the owned partitions that
        may not be worked on; `pending`: a batch waits to be done again.
        """
        queued = sum(depths.values())
        if queued >= self.high_water:
            self._full = True
        elif queued <= self.low_water:
            self._full = False
        self._ahead = {p for p in owned if self._over_share(p, depths.get(p, 0), len(owned))}
        target = frozenset(owned if self._full or pending else self._ahead.union(unworkable))
        changed = sorted(target - self.paused), sorted(self.paused - target)
        self.paused = target
        return changed

    def forget(self, partitions: Iterable[int]) -> None:
        """Forget that these were paused: they have left, or were just assigned."""
        self.paused = self.paused.difference(partitions)
        self._ahead.difference_update(partitions)

    def postpone(self, now: float) -> None:
        """Allow no try for `retry_s` from now."""
        self._retry_at = now + self.retry_s

    def may_try(self, now: float) -> bool:
        """Return whether the wait begun by `postpone` is over."""
        return now >= self._retry_at

    def wait_s(self, now: float, *, rebuilding: bool, pending: bool, due_s: float | None) -> float:
        """Return how long the next poll may wait for a record.

        `due_s`: seconds until the next batch is released, None while there is none to release.
        """
        if rebuilding:
            return 0.0
        if pending:
            due_s = max(0.0, self._retry_at - now)
        return IDLE_POLL_S if due_s is None else min(IDLE_POLL_S, due_s)

    def _over_share(self, partition: int, depth: int, owned: int) -> bool:
        # The client fetches again after a pause, the same partition first: without shares, the
        # first one fills the queue each time and the others are not read while overload lasts.
        # Two marks here too: each pause discards what was fetched ahead, so it must be rare.
        if partition in self._ahead:
            return depth * owned > self.low_water
        return depth * owned >= self.high_water
