"""The records of one partition that left the log from its midst: what they excuse.

A worker may have seen what the log no longer has, or have said that its context lacks it. An answer
that equals the recomputed one is compared as any other; one that differs proves nothing then.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

from stream.ports import Hole, Record


class LostRecords:
    """The holes of the partition that is being checked, in log order."""

    def __init__(self, reach_ms: float) -> None:
        """`reach_ms` is how far back the context of an utterance reaches at most."""
        self._reach_ms = reach_ms
        self._firsts: list[int] = []
        self._ends: list[int] = []
        self._until_ms: list[int] = []  # of this hole or an earlier one

    def add(self, hole: Hole) -> None:
        """Add a hole that lies before the next records."""
        latest_ms = max([hole.until_ms, *self._until_ms[-1:]])
        self._firsts.append(hole.first)
        self._ends.append(hole.end)
        self._until_ms.append(latest_ms)

    def has(self, offset: int) -> bool:
        """Return whether the record at this offset left the log."""
        at = bisect_right(self._firsts, offset) - 1
        return at >= 0 and offset < self._ends[at]

    def excuses(self, record: Record) -> bool:
        """Return whether the context of a record may have been in a hole."""
        at = bisect_left(self._firsts, record.offset) - 1
        return at >= 0 and self._until_ms[at] >= record.timestamp_ms - self._reach_ms

    def clear(self) -> None:
        """Forget them: the partition is checked."""
        for column in (self._firsts, self._ends, self._until_ms):
            column.clear()
