"""Laws of the window: what stays, what leaves, where a session begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from state.window import (
    KNOWN_BYTES,
    Applied,
    ArraySpec,
    Change,
    Conversation,
    Recurrence,
    StateSpec,
    Window,
    apply_nothing,
    apply_reused,
    life_ms,
    open_at,
    utterance_hash,
)

Make = Callable[..., StateSpec]
Say = Callable[..., Change]
IDLE_MS = 900_000
SESSION_MS = 43_200_000


def conversation_of(spec: StateSpec, say: Say, utterances: int, **more: Any) -> Conversation:
    after: Conversation | None = None
    for offset in range(utterances):
        after = say(spec, after, offset, **more).after
    assert after is not None
    return after


@pytest.mark.parametrize("w", [1, 2, 10])
def test_the_window_holds_exactly_the_last_w_utterances_oldest_first(
    make_spec: Make, say: Say, w: int
) -> None:
    spec = make_spec(window=w)
    after: Conversation | None = None
    rows = []
    for offset in range(2 * w + 3):
        change = say(spec, after, offset)
        after = change.after
        rows.append(after.window.rows[-1].tobytes())
        assert [row.tobytes() for row in after.window.rows] == rows[-w:]
        indices = range(max(0, offset + 1 - w), offset + 1)
        assert after.window.row_utterances == tuple(f"u{i}" for i in indices)
        assert after.window.count == offset + 1


def test_pushing_changes_no_window_that_was_there_before(
    make_spec: Make, say: Say, plain: Callable[..., Any]
) -> None:
    spec = make_spec(window=2)
    before = conversation_of(spec, say, 3)
    noted = plain(before)
    say(spec, before, 3, speaker_id="bob")
    assert plain(before) == noted


def test_a_window_keeps_no_view_of_the_batch_it_came_from(make_spec: Make) -> None:
    spec = make_spec()
    batch = np.zeros((64, 200), np.uint8)
    row = batch[0, : spec.row_bytes]
    arrays, speaker = batch[0, : spec.conversation_bytes], batch[0, : spec.speaker_bytes]
    window, _ = Window.empty(spec).push(
        spec.recurrence, Applied(row, arrays, speaker), utterance_id="u", speaker_id="s"
    )
    assert window.arrays is not None
    for array in (window.rows, window.arrays, window.speakers["s"].arrays):
        assert not np.shares_memory(array, batch)


@given(numbers=st.lists(st.integers(0, 6), min_size=1, max_size=40), limit=st.integers(1, 5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_most_recent_speakers_remain_in_that_order(
    make_spec: Make, say: Say, numbers: list[int], limit: int
) -> None:
    spec = make_spec(max_speakers=limit)
    after: Conversation | None = None
    order: list[str] = []
    for offset, number in enumerate(numbers):
        name = f"s{number}"
        order = [s for s in order if s != name] + [name]
        change = say(spec, after, offset, speaker_id=name)
        after = change.after
        assert change.forgotten == tuple(order[:-limit])
        order = order[-limit:]
        assert list(after.window.speakers) == order
        assert after.window.speakers[name].last_utterance_id == f"u{offset}"
        assert after.window.speakers[name].last_index == offset


def test_the_33rd_speaker_drops_the_least_recent_who_returns_without_state(
    make_spec: Make, say: Say
) -> None:
    spec = make_spec()
    after: Conversation | None = None
    for offset in range(32):
        after = say(spec, after, offset, speaker_id=f"s{offset}").after
    change = say(spec, after, 32, speaker_id="s32")
    assert change.forgotten == ("s0",)
    assert len(change.after.window.speakers) == 32
    opening = open_at(change.after, spec=spec, timestamp_ms=-1, offset=33, truncated=False)
    assert "s0" not in opening.before.window.speakers


@pytest.mark.parametrize(("jump", "starts"), [(IDLE_MS, False), (IDLE_MS + 1, True)])
def test_a_session_ends_when_the_clock_jumps_by_more_than_idle(
    make_spec: Make, say: Say, jump: int, starts: bool
) -> None:
    spec = make_spec()
    before = say(spec, None, 0, timestamp_ms=5_000).after
    opening = open_at(before, spec=spec, timestamp_ms=5_000 + jump, offset=1, truncated=False)
    assert opening.new_session is starts
    assert opening.horizon_cleared is starts
    assert (opening.before.recent == b"") is starts
    assert (opening.before.window.count == 0) is starts


def test_a_session_ends_after_the_utterance_that_says_so_and_ids_stay(
    make_spec: Make, say: Say
) -> None:
    spec = make_spec()
    ended = say(spec, None, 0, end_of_conversation=True, alert=b"armed").after
    assert ended.window.count == 1, "the utterance that ends a session belongs to it"
    change = say(spec, ended, 1)
    assert change.new_session
    assert not change.horizon_cleared
    assert change.after.session.first_offset == 1
    assert change.after.window.row_utterances == ("u1",)
    assert change.after.fields_of("u0") is not None
    opening = open_at(ended, spec=spec, timestamp_ms=-1, offset=1, truncated=True)
    assert opening.before.alert == b"", "alert state belongs to a session"
    assert not opening.before.session.truncated, "what is stored proves that nothing is missing"


def test_a_session_ends_max_session_after_it_began_without_any_gap(
    make_spec: Make, say: Say
) -> None:
    spec = make_spec()
    after: Conversation | None = None
    step = IDLE_MS // 2
    began = []
    for offset in range(SESSION_MS // step + 3):
        change = say(spec, after, offset, timestamp_ms=offset * step)
        after = change.after
        if change.new_session:
            began.append(offset)
            assert not change.horizon_cleared or offset == 0
    assert began == [0, SESSION_MS // step + 1]


@given(stamps=st.lists(st.integers(-1, 10_000_000), min_size=1, max_size=30))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_the_clock_is_the_highest_timestamp_seen_and_never_goes_back(
    make_spec: Make, say: Say, stamps: list[int]
) -> None:
    spec = make_spec()
    after: Conversation | None = None
    for offset, stamp in enumerate(stamps):
        after = say(spec, after, offset, timestamp_ms=stamp).after
        assert after.clock_ms == max(stamps[: offset + 1])


def test_a_record_without_timestamp_takes_the_last_clock(make_spec: Make, say: Say) -> None:
    spec = make_spec()
    first = say(spec, None, 0, timestamp_ms=5_000).after
    change = say(spec, first, 1, timestamp_ms=-1)
    assert change.after.clock_ms == 5_000
    assert not change.new_session


def test_a_conversation_without_any_timestamp_is_one_session(make_spec: Make, say: Say) -> None:
    spec = make_spec()
    after = conversation_of(spec, say, 20, timestamp_ms=-1)
    assert after.window.count == 20
    assert after.session.started_ms == -1


def test_the_first_timestamp_after_none_begins_a_session(make_spec: Make, say: Say) -> None:
    spec = make_spec()
    before = conversation_of(spec, say, 3, timestamp_ms=-1)
    change = say(spec, before, 3, timestamp_ms=1_700_000_000_000)
    assert change.new_session
    assert change.after.window.count == 1


@given(
    ids=st.lists(st.integers(0, 12), max_size=60),
    horizon=st.integers(0, 6),
    ends=st.sets(st.integers(0, 60)),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_an_id_is_recent_exactly_within_the_horizon_across_session_ends(
    make_spec: Make, say: Say, ids: list[int], horizon: int, ends: set[int]
) -> None:
    spec = make_spec(duplicate_horizon=horizon)
    after: Conversation | None = None
    applied: list[str] = []
    for offset, number in enumerate(ids):
        name = f"id{number}"
        if after is not None:
            within = applied[-horizon:] if horizon else []
            assert (after.fields_of(name) is not None) is (name in within)
        ended = offset in ends
        after = say(spec, after, offset, utterance_id=name, end_of_conversation=ended).after
        applied.append(name)
        assert len(after.recent) == KNOWN_BYTES * min(horizon, len(applied))


def test_an_id_hash_found_between_two_hashes_is_not_recent(make_spec: Make, say: Say) -> None:
    """The search runs over joined hashes: a match that straddles two of them is none."""
    wanted, fields = utterance_hash("x"), b"of the x"
    spec = make_spec()
    first = say(spec, None, 0).after
    straddling = b"\0" * 4 + wanted + b"\0" * 4
    shifted = Conversation(first.window, first.session, 0, 0, recent=straddling)
    assert shifted.fields_of("x") is None
    between = Conversation(first.window, first.session, 0, 0, recent=b"\0" * 8 + wanted)
    assert between.fields_of("x") is None, "the digest of fields is no id"
    both = Conversation(first.window, first.session, 0, 0, recent=straddling + wanted + fields)
    assert both.fields_of("x") == fields


def test_a_state_never_seen_says_truncated_until_its_session_ends(
    make_spec: Make, say: Say
) -> None:
    spec = make_spec()
    first = say(spec, None, 7, truncated=True).after
    assert first.session.truncated
    second = say(spec, first, 8, end_of_conversation=True).after
    assert second.session.truncated
    assert not say(spec, second, 9).after.session.truncated


def test_a_late_dead_letter_moves_the_position_and_nothing_else(
    make_spec: Make, say: Say, plain: Callable[..., Any]
) -> None:
    spec = make_spec()
    before = say(spec, None, 0, alert=b"a").after
    change = apply_nothing(before, spec=spec, offset=5)
    assert change.after.offset == 5
    assert not (change.row_appended or change.new_session or change.known)
    assert plain(change.after)[:2] == plain(before)[:2]
    assert plain(change.after)[3:] == plain(before)[3:]


def test_the_utterance_after_a_first_dead_letter_starts_the_session_and_keeps_truncated(
    make_spec: Make, say: Say
) -> None:
    spec = make_spec()
    for truncated in (False, True):
        nothing = apply_nothing(None, spec=spec, offset=3, truncated=truncated).after
        change = say(spec, nothing, 4)
        assert change.new_session
        assert change.after.session.first_offset == 4
        assert change.after.session.truncated is truncated


def test_the_last_seq_of_a_session_remains_where_an_utterance_has_none(
    make_spec: Make, say: Say
) -> None:
    spec = make_spec()
    first = say(spec, None, 0, seq=4).after
    second = say(spec, first, 1, seq=None).after
    assert second.session.last_seq == 4


@pytest.mark.parametrize(
    "changed",
    [
        {"window": 11},
        {"max_speakers": 31},
        {"idle_s": 901.0},
        {"max_session_s": 1.0},
        {"duplicate_horizon": 1},
        {"model": "m2"},
    ],
)
def test_the_digest_names_the_weights_and_each_setting_of_the_recurrence(
    make_spec: Make, changed: dict[str, Any]
) -> None:
    assert make_spec(**changed).digest != make_spec().digest
    assert make_spec().digest == make_spec().digest


def test_the_digest_names_the_layout_of_the_arrays(make_spec: Make) -> None:
    spec = make_spec()
    other = StateSpec(
        (*spec.utterance, ArraySpec("q", (1,))),
        spec.conversation,
        spec.speaker,
        spec.recurrence,
        spec.model_digest,
    )
    assert other.digest != spec.digest


@pytest.mark.parametrize("name", ["window", "max_speakers", "idle_s", "max_session_s"])
def test_a_recurrence_that_remembers_nothing_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Recurrence(**{name: 0})


def test_a_state_lives_as_much_longer_as_its_clock_is_ahead_up_to_a_session() -> None:
    rules = Recurrence(idle_s=10.0, max_session_s=60.0)
    now = 1_700_000_000_000
    assert life_ms(now, now, rules) == life_ms(now - 5_000, now, rules) == 20_000
    assert life_ms(-1, now, rules) == 20_000, "a conversation without timestamps"
    assert life_ms(now + 30_000, now, rules) == 50_000
    assert life_ms(now + 10**13, now, rules) == 80_000


def test_a_dropped_utterance_moves_the_position_and_is_marked_until_the_next_one(
    make_spec: Make, say: Say, plain: Callable[..., Any]
) -> None:
    spec = make_spec(idle_s=900)
    before = say(spec, None, 0, alert=b"a").after
    change = apply_reused(before, offset=5)
    assert (change.after.offset, change.after.id_reused) == (5, True)
    assert not (change.row_appended or change.new_session or change.known)
    assert plain(change.after)[3:-1] == plain(before)[3:-1] and not before.id_reused
    assert apply_nothing(change.after, spec=spec, offset=6).after.id_reused
    assert not say(spec, change.after, 6).after.id_reused
    opening = open_at(
        change.after, spec=spec, timestamp_ms=2_000_001, offset=6, truncated=False
    )  # the last one was at 1,000,000
    assert not opening.before.id_reused, "an idle gap ends it, as the state itself"


def test_a_digest_of_another_size_is_refused(make_spec: Make, say: Say) -> None:
    with pytest.raises(ValueError, match="has 7 bytes, not 8"):
        say(make_spec(), None, 0, fields=b"1234567")
