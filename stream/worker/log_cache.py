"""A cache of the last stretch read of one partition's log."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from stream.ports import LogReader, Record

PORTION: Final = 1_000
REACH: Final = 64  # growth of each search for a record: transaction markers hold none
RECORD_BYTES: Final = 2_048  # of a record besides its value: its headers, as objects
MOST_BYTES: Final = 64 << 20


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

    def first_record(self, low: int) -> Record | None:
        """Return the first record from offset `low` on; None where there is none close to it."""
        return next((r for portion in self.read(low, low + REACH) for r in portion), None)

    def last_record(self, low: int, end: int) -> Record | None:
        """Return the last record from offset `low` up to `end`; None where there is none."""
        reach = 1
        while True:
            first = max(low, end - reach)
            found = [r for portion in self.read(first, end) for r in portion]
            if found or first <= low:
                return found[-1] if found else None
            reach *= REACH
