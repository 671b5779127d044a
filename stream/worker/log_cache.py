"""What was read of a partition a moment ago, so that it need not be read twice."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from stream.ports import LogReader, Record

PORTION: Final = 1_000
RECORD_BYTES: Final = 2_048  # what a record takes beside its value: its headers, as objects
MOST_BYTES: Final = 64 << 20


class Remembered:
    """Reads one partition through a `LogReader`; remembers the last stretch that was read whole.

    A stretch of more than `most_bytes` is not remembered, and is read again where it is wanted.
    """

    def __init__(self, reader: LogReader, partition: int, *, most_bytes: int = MOST_BYTES) -> None:
        self._reader, self._partition, self._most = reader, partition, most_bytes
        self._first = self._end = 0
        self._records: list[Record] = []

    def read(self, first: int, end: int) -> Iterator[list[Record]]:
        """The records from offset `first` up to `end`, see `LogReader.read`."""
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
