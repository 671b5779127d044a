"""The conversations in the log that were active within `idle_s` before an offset, and their start.

Pure over records: `Rebuild` reads them, a stretch of the log at a time, the last one first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from stream.ports import Record


@dataclass(slots=True)
class LogStretch:
    """One conversation in a stretch of the log."""

    first: int  # offset to replay from
    first_ms: int
    last: int
    last_ms: int
    settled: bool = False  # nothing before `first` belongs to its session or duplicate horizon

    def add(self, record: Record, idle_ms: int) -> None:
        """Add the next record; after a pause, session and duplicate horizon begin with it."""
        if record.timestamp_ms - self.last_ms > idle_ms:
            self.first, self.first_ms, self.settled = record.offset, record.timestamp_ms, True
        self.last, self.last_ms = record.offset, max(self.last_ms, record.timestamp_ms)

    def follow(self, earlier: LogStretch | None, since_ms: int, idle_ms: int) -> None:
        """Add the stretch before, which begins at `since_ms`; None: it does not occur there."""
        if self.first_ms - (since_ms if earlier is None else earlier.last_ms) > idle_ms:
            self.settled = True
        elif earlier is not None:
            self.first, self.first_ms = earlier.first, earlier.first_ms
            self.settled = earlier.settled


class LogScan:
    """The conversations in a stretch of one partition's log, or `only` some of them."""

    def __init__(self, idle_ms: int, only: Collection[str] | None = None) -> None:
        self.conversations: dict[str, LogStretch] = {}
        self._idle_ms, self._only = idle_ms, only

    @property
    def unsettled(self) -> set[str]:
        """The conversations that may have begun before what was scanned."""
        return {name for name, stretch in self.conversations.items() if not stretch.settled}

    def add(self, records: Iterable[Record]) -> None:
        """Add the next records, in log order."""
        for record in records:
            name = (record.key or b"").decode(errors="replace")
            if self._only is not None and name not in self._only:
                continue
            at, sent_ms = record.offset, record.timestamp_ms
            stretch = self.conversations.setdefault(name, LogStretch(at, sent_ms, at, sent_ms))
            stretch.add(record, self._idle_ms)

    def follow(self, earlier: LogScan, since_ms: int) -> None:
        """Add the scan of the stretch before for what is unsettled here; see `LogStretch`."""
        for name in self.unsettled:
            stretch = self.conversations[name]
            stretch.follow(earlier.conversations.get(name), since_ms, self._idle_ms)

    def reach_start(self, low: int, low_ms: int) -> None:
        """Settle what cannot have begun earlier: the scan reaches the log's first record, at `low`.

        Above offset 0, retention removed records from until shortly before `low_ms`.
        """
        for stretch in self.conversations.values():
            stretch.settled |= low == 0 or stretch.first_ms - low_ms > self._idle_ms
