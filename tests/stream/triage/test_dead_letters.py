"""Dead letters are chosen, counted and described without their text."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from stream.cli.dlq import choice_of
from stream.cli.options import moment
from stream.errors import ConfigError
from stream.events.dead_letter import REQUEUED, Letter, dead_letter, letter_of, requeued
from stream.events.poison import Poison, Reason
from stream.ports import Record
from stream.triage.dead_letters import (
    Choice,
    cannot_requeue,
    count_letters,
    in_log_order,
    preview,
    shape,
)

HOUR_MS = 3_600_000
SECRET = b'{"text": "my words", "seq": [1, 2], "conversation_id": "c"'


def letter(
    offset: int = 7,
    *,
    partition: int = 0,
    reason: Reason = Reason.BAD_JSON,
    written_ms: int = 0,
    value: bytes | None = SECRET,
    headers: tuple[tuple[str, bytes | None], ...] = (("a", b"1"), ("a", None)),
) -> Letter:
    """Return a letter as it is read back from the topic."""
    record = Record("utterances", partition, offset, 0, b"c", value, headers)
    written = dead_letter(record, Poison(reason, "mend it"), topic="dead-letters")
    read = Record("dead-letters", 0, 0, written_ms, written.key, written.value, written.headers)
    found = letter_of(read)
    assert found is not None
    return found


def test_a_letter_gives_back_the_record_unchanged_with_one_mark() -> None:
    again = requeued(letter())
    assert (again.topic, again.key, again.value) == ("utterances", b"c", SECRET)
    assert again.headers == (("a", b"1"), ("a", None), (REQUEUED, b"utterances-0-7"))


def test_a_loop_is_seen_by_its_marks() -> None:
    """A record that fails again brings its earlier letters' ids with it."""
    first = letter()
    second = letter(19, headers=requeued(first).headers)
    assert (first.requeued, second.requeued) == ((), ("utterances-0-7",))
    third = letter(44, headers=requeued(second).headers)
    assert third.requeued == ("utterances-0-7", "utterances-0-19")


def test_records_of_others_are_no_letters() -> None:
    assert letter_of(Record("dead-letters", 0, 0, 0, b"k", b"v")) is None
    half = (("emotrack_dlq_partition", b"x"), ("emotrack_dlq_offset", b"1"))
    assert letter_of(Record("dead-letters", 0, 0, 0, b"k", b"v", half)) is None


def test_letters_are_sent_in_the_order_of_their_log_and_once() -> None:
    found = [letter(9), letter(3, partition=1), letter(2), letter(9)]
    assert [one.id for one in in_log_order(found)] == [
        "utterances-0-2",
        "utterances-0-9",
        "utterances-1-3",
    ]


def test_a_letter_by_reference_says_why_it_cannot_be_sent() -> None:
    large = letter(reason=Reason.TOO_LARGE)
    why = cannot_requeue(large, "utterances")
    assert why is not None and "without body" in why and "utterances-0@7" in why
    assert cannot_requeue(letter(), "utterances") is None
    assert "came from utterances" in (cannot_requeue(letter(), "others") or "")
    unreadable = letter(reason=Reason.BAD_HEADERS, headers=(("ce_unreadable", None),))
    assert "header names" in (cannot_requeue(unreadable, "utterances") or "")


def test_letters_are_counted_by_reason_and_by_time() -> None:
    written = [
        letter(1, written_ms=10),
        letter(1, written_ms=20),  # the same letter again
        letter(2, written_ms=HOUR_MS, reason=Reason.EMPTY_ID),
        letter(3, written_ms=HOUR_MS + 5, headers=((REQUEUED, b"x"),)),
    ]
    bad = count_letters(written, "reason")["bad_json"]
    assert (bad.letters, bad.repeats, bad.again) == (2, 1, 1)
    assert (bad.first_ms, bad.last_ms) == (10, HOUR_MS + 5)
    by_hour = count_letters(written, "hour")
    assert {name: pile.letters for name, pile in by_hour.items()} == {
        "1970-01-01 00:00": 1,
        "1970-01-01 01:00": 2,
    }


def test_a_choice_takes_what_fits_all_its_filters() -> None:
    one = letter(written_ms=100)
    assert Choice().takes(one)
    assert Choice(frozenset({one.id}), frozenset({"bad_json"}), 100, 101).takes(one)
    assert not Choice(ids=frozenset({"other"})).takes(one)
    assert not Choice(reasons=frozenset({"empty_id"})).takes(one)
    assert not Choice(since_ms=101).takes(one)
    assert not Choice(until_ms=100).takes(one)


def test_a_body_is_described_without_a_word_of_it() -> None:
    text = shape(SECRET + b"}")
    assert text == "59 bytes of JSON: {text: str(8), seq: list(2), conversation_id: str(1)}"
    assert shape(SECRET) == "58 bytes, no JSON"
    assert shape(None) == "no body"
    assert "words" not in text
    assert preview(SECRET).startswith('{"text": "my words"')
    assert preview(b"\xff\x00") == "ff 00"
    assert len(preview(b"x" * 5_000)) < 600


def test_times_are_moments_or_ages() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=UTC)
    at = int(now.timestamp() * 1000)
    assert moment("2h", now) == at - 2 * HOUR_MS
    assert moment("2026-01-31T12:00", now) == at
    assert moment("2026-01-31T13:00+01:00", now) == at
    assert moment(None, now) is None
    with pytest.raises(ConfigError, match="is no time"):
        moment("yesterday", now)


def test_an_unknown_reason_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="bad_json"):
        choice_of(None, ["bad_jason"], None, None)


def test_the_repeat_of_a_letter_is_the_same_letter() -> None:
    assert letter(written_ms=5) == replace(letter(written_ms=9), time_ms=5)
