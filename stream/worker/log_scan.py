"""The conversations in a partition's log that were active before an offset, and where they began.

`Rebuild` reads a stretch of the log at a time, the last one first, through `LogCache`; `LogScan` is
pure over the records.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from stream.ports import LogReader, Record

PORTION: Final = 1_000
REACH: Final = 64  # growth of each search for a record: transaction markers hold none
RECORD_BYTES: Final = 2_048  # of a record besides its value: its headers, as objects
MOST_BYTES: Final = 64 << 20


@dataclass(slots=True)
class LogStretch:
    """One conversation in a stretch of the log."""

    first: int  # offset to replay from
    first_ms: int
    last: int
    last_ms: int
    settled: bool = False  # nothing before `first` belongs to its session or duplicate horizon


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
            if sent_ms - stretch.last_ms > self._idle_ms:
                # After a pause, session and duplicate horizon begin here.
                stretch.first, stretch.first_ms, stretch.settled = at, sent_ms, True
            stretch.last, stretch.last_ms = at, max(stretch.last_ms, sent_ms)

    def follow(self, earlier: LogScan, since_ms: int) -> None:
        """Add the scan of the stretch before, from `since_ms` on, for what is unsettled here."""
        for name in self.unsettled:
            stretch, before = self.conversations[name], earlier.conversations.get(name)
            if stretch.first_ms - (since_ms if before is None else before.last_ms) > self._idle_ms:
                stretch.settled = True
            elif before is not None:
                stretch.first, stretch.first_ms = before.first, before.first_ms
                stretch.settled = before.settled

    def reach_start(self, low: int, low_ms: int) -> None:
        """Settle what cannot have begun earlier: the scan reaches the log's first record, at `low`.

        Above offset 0, retention removed records from until shortly before `low_ms`.
        """
        for stretch in self.conversations.values():
            stretch.settled |= low == 0 or stretch.first_ms - low_ms > self._idle_ms


class LogCache:
    """Reads one partition through a `LogReader`; caches the last stretch that was read whole.

    A stretch of more than `most_bytes` is not cached, and is read again when needed.
    """

    def __init__(self, reader: LogReader, partition: int, *, most_bytes: int = MOST_BYTES) -> None:
        self._reader, self._partition, self._most = reader, partition, most_bytes
        self._first = self._end = 0
        self._records: list[Record] = []

    def read(self, first: int, end: int) -> Iterator[list[Record]]:
        """Yield the records from offset `first` up to `end`, see `LogReader.read`."""
        if self._first <= first and end <= self._end:
            at, to = (bisect_left(self._records, o, key=lambda r: r.offset) for o in (first, end))
            yield from (self._records[i : min(i + PORTION, to)] for i in range(at, to, PORTION))
            return
        self._first = self._end = first
        self._records, size = [], 0
        for portion in self._reader.read(self._partition, first, end):
            size += sum(RECORD_BYTES + len(r.value or b"") for r in portion)
            if size <= self._most:
                self._records += portion
            yield portion
        if size <= self._most:
            self._end = end
        else:
            self._records = []

    def last_record(self, low: int, end: int) -> Record | None:
        """Return the last record from offset `low` up to `end`; None where there is none."""
        reach = 1
        while True:
            first = max(low, end - reach)
            found = [r for portion in self.read(first, end) for r in portion]
            if found or first <= low:
                return found[-1] if found else None
            reach *= REACH
