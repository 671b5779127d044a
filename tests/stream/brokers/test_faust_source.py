"""What a Faust app has handed over: taken once, given again after a seek, dropped when final."""

from __future__ import annotations

from types import SimpleNamespace

from stream.brokers.faust_source import Held, as_record
from stream.ports import NO_TIMESTAMP, Record


def record(offset: int) -> Record:
    return Record("utterances", 0, offset, 0, b"c", b"{}")


def held(*offsets: int) -> Held:
    return Held(records=[record(offset) for offset in offsets])


def offsets(records: list[Record]) -> list[int]:
    return [one.offset for one in records]


def test_records_are_taken_in_order_and_once() -> None:
    mine = held(3, 4, 6)
    assert offsets(mine.take(2)) == [3, 4] and mine.position == 5
    assert offsets(mine.take(2)) == [6] and mine.position == 7
    assert mine.take(2) == [] and mine.position == 7


def test_a_seek_gives_again_what_is_not_committed() -> None:
    """Faust need not read it again, nor can it be relied on to."""
    mine = held(3, 4, 6)
    mine.take(3)
    mine.committed(4)
    mine.seek(4)
    assert offsets(mine.take(5)) == [4, 6]
    mine.seek(5)  # a transaction's mark: no record is there
    assert offsets(mine.take(5)) == [6]
    mine.seek(9)
    assert mine.take(5) == [] and mine.position == 9


def test_what_is_committed_is_held_no_longer_and_what_waits_is_kept() -> None:
    mine = held(3, 4, 5)
    mine.take(2)
    mine.committed(5)
    assert offsets(mine.records) == [5] and mine.at == 0
    mine.committed(99)
    assert offsets(mine.records) == [5], "it was never delivered"


def test_a_message_of_faust_is_the_record_as_it_came() -> None:
    """Milliseconds survive Faust's seconds; names may repeat, values may be missing."""
    headers = (("a", b"1"), ("a", None))
    message = SimpleNamespace(
        topic="t", partition=2, offset=7, timestamp=1_700_000_000.123, headers=headers,
        key=None, value=b"x",
    )  # fmt: skip
    assert as_record(message) == Record("t", 2, 7, 1_700_000_000_123, None, b"x", headers)
    message.timestamp, message.headers = None, None
    assert as_record(message) == Record("t", 2, 7, NO_TIMESTAMP, None, b"x", ())
