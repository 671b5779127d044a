"""A stretch of the log that was read whole is not read again, where it is small enough."""

from __future__ import annotations

from collections.abc import Iterator

from stream.ports import Record
from stream.worker.log_scan import RECORD_BYTES, LogCache
from tests.fakes.memory_log import LocalLog, LocalReader

VALUE = b"x" * 100


class Counted(LocalReader):
    """A reader that notes which stretches it was asked for."""

    asked: list[tuple[int, int]]

    def read(self, partition: int, first: int, end: int) -> Iterator[list[Record]]:
        self.asked.append((first, end))
        return super().read(partition, first, end)


def reader(records: int = 10) -> Counted:
    log = LocalLog(now_ms=lambda: 0)
    for number in range(records):
        log.append("utterances", b"a", VALUE + str(number).encode())
    made = Counted(log, "utterances", portion=3)
    made.asked = []
    return made


def offsets(log: LogCache, first: int, end: int) -> list[int]:
    return [record.offset for portion in log.read(first, end) for record in portion]


def test_what_was_read_whole_is_not_read_again() -> None:
    source = reader()
    log = LogCache(source, 0)
    assert offsets(log, 2, 9) == list(range(2, 9))
    assert offsets(log, 2, 9) == list(range(2, 9))
    assert offsets(log, 4, 6) == [4, 5]
    assert source.asked == [(2, 9)]


def test_what_is_beyond_the_cache_is_read() -> None:
    source = reader()
    log = LogCache(source, 0)
    offsets(log, 2, 5)
    assert offsets(log, 2, 6) == [2, 3, 4, 5]
    assert offsets(log, 1, 6) == [1, 2, 3, 4, 5]
    assert source.asked == [(2, 5), (2, 6), (1, 6)]


def test_a_reading_that_was_given_up_is_not_remembered() -> None:
    source = reader()
    log = LogCache(source, 0)
    assert [r.offset for r in next(log.read(0, 9))] == [0, 1, 2]
    assert offsets(log, 0, 9) == list(range(9))
    assert source.asked == [(0, 9), (0, 9)]


def test_a_large_stretch_is_read_each_time_and_not_cached() -> None:
    source = reader()
    log = LogCache(source, 0, most_bytes=4 * (RECORD_BYTES + len(VALUE) + 1))
    assert offsets(log, 0, 9) == offsets(log, 0, 9) == list(range(9))
    assert offsets(log, 0, 4) == offsets(log, 0, 4) == list(range(4))
    assert source.asked == [(0, 9), (0, 9), (0, 4)]
