"""Records from a Faust app are taken once, again after a seek, and dropped once committed."""

from __future__ import annotations

from types import SimpleNamespace

from stream.brokers.faust_source import PartitionBuffer, as_record
from stream.ports import NO_TIMESTAMP, Record


def record(offset: int) -> Record:
    return Record("utterances", 0, offset, 0, b"c", b"{}")


def filled(*offsets: int) -> PartitionBuffer:
    return PartitionBuffer(records=[record(offset) for offset in offsets])


def offsets(records: list[Record]) -> list[int]:
    return [one.offset for one in records]


def test_records_are_taken_in_order_and_once() -> None:
    buffer = filled(3, 4, 6)
    assert offsets(buffer.take(2)) == [3, 4] and buffer.position == 5
    assert offsets(buffer.take(2)) == [6] and buffer.position == 7
    assert buffer.take(2) == [] and buffer.position == 7


def test_a_seek_delivers_again_what_is_not_committed() -> None:
    """Faust need not read it again, nor can it be relied on to."""
    buffer = filled(3, 4, 6)
    buffer.take(3)
    buffer.committed(4)
    buffer.seek(4)
    assert offsets(buffer.take(5)) == [4, 6]
    buffer.seek(5)  # a transaction marker, no record
    assert offsets(buffer.take(5)) == [6]
    buffer.seek(9)
    assert buffer.take(5) == [] and buffer.position == 9


def test_committed_records_are_dropped_and_undelivered_ones_stay() -> None:
    buffer = filled(3, 4, 5)
    buffer.take(2)
    buffer.committed(5)
    assert offsets(buffer.records) == [5] and buffer.at == 0
    buffer.committed(99)
    assert offsets(buffer.records) == [5], "it was never delivered"


def test_a_message_of_faust_becomes_an_unchanged_record() -> None:
    """Milliseconds survive Faust's seconds; names may repeat, values may be missing."""
    headers = (("a", b"1"), ("a", None))
    message = SimpleNamespace(
        topic="t", partition=2, offset=7, timestamp=1_700_000_000.123, headers=headers,
        key=None, value=b"x",
    )  # fmt: skip
    assert as_record(message) == Record("t", 2, 7, 1_700_000_000_123, None, b"x", headers)
    message.timestamp, message.headers = None, None
    assert as_record(message) == Record("t", 2, 7, NO_TIMESTAMP, None, b"x", ())
