"""A stretch of the log says which conversations are active and where their sessions began."""

from __future__ import annotations

from stream.ports import Record
from stream.worker.log_scan import LogScan

IDLE_MS = 60_000


def records(*said: tuple[str, int], first: int = 0) -> list[Record]:
    """Records of these conversations, so many seconds after the start."""
    return [
        Record("u", 0, first + at, seconds * 1000, name.encode(), b"")
        for at, (name, seconds) in enumerate(said)
    ]


def scan(*said: tuple[str, int], first: int = 0, only: set[str] | None = None) -> LogScan:
    made = LogScan(IDLE_MS, only)
    made.add(records(*said, first=first))
    return made


def test_a_conversation_runs_from_its_first_record_to_its_last() -> None:
    found = scan(("a", 0), ("b", 10), ("a", 60), first=5).conversations
    assert {name: (one.first, one.last) for name, one in found.items()} == {
        "a": (5, 7),
        "b": (6, 6),
    }


def test_a_pause_begins_a_session_and_settles_it() -> None:
    made = scan(("a", 0), ("b", 10), ("a", 61))
    assert made.unsettled == {"b"}
    assert (made.conversations["a"].first, made.conversations["a"].settled) == (2, True)


def test_time_that_goes_back_makes_no_pause() -> None:
    assert scan(("a", 60), ("a", 0), ("a", 61)).unsettled == {"a"}


def test_only_requested_conversations_are_scanned() -> None:
    assert set(scan(("a", 0), ("b", 1), only={"b"}).conversations) == {"b"}


def test_an_earlier_stretch_moves_the_beginning_back_where_no_pause_is_between() -> None:
    late = scan(("a", 100), ("b", 100), ("c", 100), first=10)
    late.follow(scan(("a", 39), ("b", 40), first=5), since_ms=39_999)
    assert late.unsettled == {"b"}
    assert {n: one.first for n, one in late.conversations.items()} == {"a": 10, "b": 6, "c": 12}


def test_an_earlier_stretch_that_is_settled_settles_what_continues_it() -> None:
    late = scan(("a", 150), ("b", 150), first=10)
    late.follow(scan(("a", 0), ("a", 100), ("b", 100), first=5), since_ms=0)
    assert late.unsettled == {"b"}
    assert late.conversations["a"].first == 6


def test_an_earlier_stretch_that_begins_close_by_settles_nothing_by_silence() -> None:
    late = scan(("a", 100), first=10)
    late.follow(scan(first=5), since_ms=40_000)
    assert late.unsettled == {"a"}


def test_at_the_very_first_record_all_is_settled() -> None:
    made = scan(("a", 0), ("b", 10))
    made.reach_start(0, 0)
    assert made.unsettled == set()


def test_after_a_cut_only_what_began_more_than_a_pause_later_is_settled() -> None:
    made = scan(("a", 0), ("b", 60), ("c", 61), first=9)
    made.reach_start(9, 0)
    assert made.unsettled == {"a", "b"}
