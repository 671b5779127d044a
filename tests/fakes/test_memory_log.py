"""The log in memory keeps what a broker promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from stream.ports import CommitRefused, DeliveryFailed, Outgoing, Start
from tests.fakes.memory_log import LocalLog, LocalSink, LocalSource


class Told:
    """Remembers what the source tells."""

    def __init__(self) -> None:
        self.facts: list[tuple[str, object]] = []

    def assigned(self, starts: Mapping[int, Start]) -> None:
        self.facts.append(("assigned", dict(starts)))

    def revoked(self, partitions: Sequence[int]) -> None:
        self.facts.append(("revoked", list(partitions)))

    def lost(self, partitions: Sequence[int]) -> None:
        self.facts.append(("lost", list(partitions)))


def log(partitions: int = 1) -> LocalLog:
    return LocalLog(lambda: 5, partitions)


def member(of: LocalLog) -> tuple[LocalSource, Told]:
    source, told = LocalSource(of, "t", "g"), Told()
    source.subscribe(told)
    return source, told


def test_a_key_stays_on_its_partition_in_order() -> None:
    here = log(3)
    for i in range(9):
        here.append("t", b"k%d" % (i % 3), b"%d" % i)
    source, _ = member(here)
    records = source.poll(100, 0.0)
    by_key: dict[bytes | None, list[int]] = {}
    for r in records:
        by_key.setdefault(r.key, []).append(int(r.value or b""))
    assert by_key == {b"k0": [0, 3, 6], b"k1": [1, 4, 7], b"k2": [2, 5, 8]}
    assert len({(r.key, r.partition) for r in records}) == 3


def test_what_was_not_committed_comes_again() -> None:
    here = log()
    for i in range(4):
        here.append("t", b"k", b"%d" % i)
    source, _ = member(here)
    assert len(source.poll(100, 0.0)) == 4
    source.commit({0: 2}, {0: ""})
    again, told = member(here)
    assert [r.offset for r in again.poll(100, 0.0)] == [2, 3]
    assert told.facts == [("assigned", {0: Start(2)})]


def test_a_stranger_may_not_commit() -> None:
    source, _ = member(log())
    with pytest.raises(CommitRefused):
        source.commit({0: 1}, {0: ""})


def test_closing_revokes_what_is_held() -> None:
    source, told = member(log())
    source.poll(1, 0.0)
    source.close()
    source.close()
    assert told.facts[1:] == [("revoked", [0])]


def test_pausing_seeking_and_lag() -> None:
    here = log()
    for _ in range(3):
        here.append("t", b"k", b"v")
    source, _ = member(here)
    assert len(source.poll(1, 0.0)) == 1
    assert source.lag() == {0: 2}
    source.pause([0])
    assert source.poll(9, 0.0) == []
    source.resume([0])
    source.seek(0, 0)
    assert [r.offset for r in source.poll(9, 0.0)] == [0, 1, 2]


def test_the_sink_writes_at_flush_and_says_what_it_gave_up() -> None:
    here = log()
    sink = LocalSink(here)
    sink.produce([Outgoing("o", b"k", b"1"), Outgoing("o", b"k", b"2")])
    assert here.read("o") == []
    sink.fail_next = 1
    with pytest.raises(DeliveryFailed):
        sink.flush(1.0)
    assert [r.value for r in here.read("o")] == [b"2"]
