"""The contiguous low watermark of one partition: what may be committed, and what it counts."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Watermark:
    """Records are admitted in log order and finished in any order.

    Only the finished ones below the first unfinished one may be committed. Offsets may have gaps
    (compaction, transactions).
    """

    _open: OrderedDict[int, str | None] = field(default_factory=OrderedDict)
    _passed: deque[tuple[int, str]] = field(default_factory=deque)
    _read: deque[int] = field(default_factory=deque)  # admitted, not known to be committed

    @property
    def waiting(self) -> int:
        """Records read that may not be committed yet."""
        return len(self._open)

    def admit(self, offset: int) -> None:
        """This record was read."""
        self._open[offset] = None
        self._read.append(offset)

    def finish(self, offset: int, outcome: str) -> None:
        """This record has its outcome, and all it sends is acknowledged.

        A record that was never admitted (its partition was dropped meanwhile) is ignored.
        """
        if offset not in self._open:
            return
        self._open[offset] = outcome
        while self._open:
            first = next(iter(self._open))
            done = self._open[first]
            if done is None:
                return
            del self._open[first]
            self._passed.append((first, done))

    def committable(self) -> int | None:
        """The next offset to commit; None while there is nothing new."""
        return self._passed[-1][0] + 1 if self._passed else None

    def read_below(self, committed: int) -> int:
        """Count the records read below `committed`, once each: what `confirm` must account for."""
        count = 0
        while self._read and self._read[0] < committed:
            self._read.popleft()
            count += 1
        return count

    def confirm(self, committed: int) -> list[str]:
        """The broker holds `committed`: return the outcomes that are final by it."""
        outcomes: list[str] = []
        while self._passed and self._passed[0][0] < committed:
            outcomes.append(self._passed.popleft()[1])
        return outcomes
