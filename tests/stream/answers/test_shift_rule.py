"""The built-in alert rule, as laws over any sequence of probabilities."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.answers.shift_rule import MAX_SPEAKERS, ShiftRule, decide, largest_move

RULE = ShiftRule(enter=0.6, exit=0.4, cooldown=2)
PROBABILITIES = st.lists(st.floats(0, 1), max_size=60)


def fired(rule: ShiftRule, probabilities: list[float], speaker: str = "s") -> list[bool]:
    state, answers = b"", []
    for probability in probabilities:
        state, fires = decide(rule, state, speaker, probability)
        answers.append(fires)
    return answers


def test_it_fires_at_the_threshold_and_not_below() -> None:
    assert fired(RULE, [0.59, 0.6]) == [False, True]


def test_it_stays_silent_while_the_probability_stays_high() -> None:
    assert fired(RULE, [0.9] * 10) == [True] + [False] * 9


def test_only_a_dip_below_the_exit_arms_it_again() -> None:
    assert fired(RULE, [0.9, 0.5, 0.5, 0.5, 0.9])[-1] is False
    assert fired(RULE, [0.9, 0.3, 0.5, 0.5, 0.9])[-1] is True


def test_cooldown_counts_the_speakers_further_utterances() -> None:
    low_high = [0.9, 0.1, 0.9, 0.9]
    assert fired(RULE, low_high) == [True, False, False, True]
    assert fired(ShiftRule(0.6, 0.4, cooldown=0), low_high) == [True, False, True, False]


@given(PROBABILITIES)
def test_between_two_alerts_lie_a_dip_and_the_cooldown(probabilities: list[float]) -> None:
    at = [i for i, fires in enumerate(fired(RULE, probabilities)) if fires]
    for before, after in pairwise(at):
        assert after - before > RULE.cooldown
        assert min(probabilities[before + 1 : after]) < RULE.exit
    assert all(probabilities[i] >= RULE.enter for i in at)


@given(PROBABILITIES, PROBABILITIES)
def test_speakers_do_not_disturb_each_other(one: list[float], other: list[float]) -> None:
    state, alone = b"", []
    for i, probability in enumerate(one):
        if i < len(other):
            state, _ = decide(RULE, state, "other", other[i])
        state, fires = decide(RULE, state, "one", probability)
        alone.append(fires)
    assert alone == fired(RULE, one)


def test_a_first_utterance_never_fires_and_starts_the_speaker_afresh() -> None:
    state, _ = decide(RULE, b"", "s", 0.9)
    state, fires = decide(RULE, state, "s", None)
    assert not fires
    assert decide(RULE, state, "s", 0.9)[1]


def test_the_least_recent_speaker_beyond_32_is_forgotten() -> None:
    state, _ = decide(RULE, b"", "first", 0.9)
    bounded = b""
    for i in range(MAX_SPEAKERS):
        assert not decide(RULE, state, "first", 0.9)[1]
        state, _ = decide(RULE, state, f"s{i}", 0.9)
        bounded = bounded or state
    assert decide(RULE, state, "first", 0.9)[1]
    assert len(state) <= 9 + 11 * MAX_SPEAKERS


def test_the_state_of_another_rule_is_never_read() -> None:
    state, _ = decide(RULE, b"", "s", 0.9)
    assert decide(ShiftRule(0.6, 0.4, cooldown=3), state, "s", 0.9)[1]
    assert not decide(RULE, state, "s", 0.9)[1]


@given(st.binary(max_size=60))
def test_no_bytes_make_it_raise(state: bytes) -> None:
    after, _ = decide(RULE, state, "s", 0.5)
    assert len(after) >= 9


def test_everything_that_decides_is_part_of_the_digest() -> None:
    rules = [
        RULE,
        ShiftRule(0.7, 0.4, 2),
        ShiftRule(0.6, 0.3, 2),
        ShiftRule(0.6, 0.4, 1),
        ShiftRule(0.6, 0.4, 2, name="other"),
        ShiftRule(0.6, 0.4, 2, severity="critical"),
    ]
    assert len({rule.digest for rule in rules}) == len(rules)


@pytest.mark.parametrize(("enter", "leave"), [(0.4, 0.5), (1.1, 0.5), (0.5, -0.1)])
def test_thresholds_out_of_order_are_refused(enter: float, leave: float) -> None:
    with pytest.raises(ValueError, match="exit <= enter"):
        ShiftRule(enter, leave)


def test_the_largest_move_never_stays_where_it_was() -> None:
    stay_wins = [0.9, 0.02, 0.01, 0.0, 0.03, 0.01, 0.0, 0.02, 0.01]
    assert largest_move(stay_wins, ("calm", "sad", "glad")) == ("calm", "sad")
    assert largest_move([0.1, 0.2, 0.7, 0.0], ("calm", "sad")) == ("sad", "calm")


def doubting(rule: ShiftRule, spoken: list[tuple[float | None, bool]]) -> list[bool]:
    """Return at which utterances the rule fires: each a shift probability, and if it is doubted."""
    state, answers = b"", []
    for probability, doubted in spoken:
        state, fires = decide(rule, state, "s", probability, doubted=doubted)
        answers.append(fires)
    return answers


def test_a_doubted_utterance_is_no_part_of_an_alert() -> None:
    """Neither the one it would be about, nor the one that the speaker's emotion moved from."""
    first = (None, False)
    assert doubting(RULE, [first, (0.9, True)]) == [False, False]
    assert doubting(RULE, [first, (0.1, True), (0.9, False)]) == [False, False, False]
    assert doubting(RULE, [first, (0.1, True), (0.9, False), (0.9, False)])[-1]
    assert doubting(RULE, [(None, True), (0.9, False), (0.9, False)]) == [False, False, True]


def test_a_doubted_utterance_moves_neither_hysteresis_nor_cooldown() -> None:
    rule = ShiftRule(0.6, 0.4, cooldown=1)
    armed_by_a_dip = [(None, False), (0.9, False), (0.1, False), (0.9, False)]
    assert doubting(rule, armed_by_a_dip)[-1]
    dip_is_doubted = [(None, False), (0.9, False), (0.1, True), (0.1, False), (0.9, False)]
    assert not doubting(rule, dip_is_doubted)[-1], "neither it nor the shift away from it arms"
    silent = ShiftRule(0.6, 0.4, cooldown=2)
    waits = [(None, False), (0.9, False), (0.1, False), (0.1, True), (0.1, True), (0.9, False)]
    assert not doubting(silent, waits)[-1]
    assert doubting(silent, [*waits[:-1], (0.1, False), (0.9, False)])[-1]


@given(PROBABILITIES, st.data())
def test_other_speakers_are_not_touched_by_doubt(one: list[float], data: st.DataObject) -> None:
    state, alone = b"", []
    for probability in one:
        if data.draw(st.booleans()):
            state, fires = decide(RULE, state, "other", 0.9, doubted=True)
            assert not fires
        state, fires = decide(RULE, state, "one", probability)
        alone.append(fires)
    assert alone == fired(RULE, one)


def test_without_doubt_the_state_is_as_it_was_before_there_was_any() -> None:
    """States of an earlier version are read on: their byte for a speaker is 0 or 1."""
    state, _ = decide(RULE, b"", "s", 0.9)
    state, _ = decide(RULE, state, "s", 0.1)
    assert state[-3:] == bytes([1, RULE.cooldown - 1, 0])
