"""A fact that goes on is a line a minute, with its count; no other fact is hidden by it."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from model.interface import Predictor
from stream.settings import Settings
from stream.worker.process import configure_log
from stream.worker.throttle import EVERY_S, FACTS_AT_MOST, Throttle
from tests.stream.worker.test_loop import Plant

log = structlog.get_logger()
MINUTES = 3
AT_MOST = 10  # lines a minute on one thing that is wrong


class Hand:
    """A clock that is moved by hand."""

    s = 0.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def hand() -> Hand:
    return Hand()


def test_the_same_fact_again_is_left_out_until_its_minute_is_over(hand: Hand) -> None:
    with capture_logs(processors=[Throttle(hand)]) as lines:
        for n in range(1, 5):
            log.warning("batch held", per="reason", reason="nobody answers", records=n)
            hand.s += EVERY_S / 3
    assert [(line["records"], line.get("left_out")) for line in lines] == [(1, None), (4, 2)]
    assert "per" not in lines[0]


def test_another_reason_event_or_partition_is_another_fact_and_is_said_at_once(hand: Hand) -> None:
    said: list[tuple[str, dict[str, Any]]] = [
        ("held", {"per": "reason", "reason": "a"}),
        ("held", {"per": "reason", "reason": "b"}),
        ("postponed", {"per": "reason", "reason": "a"}),
        ("disputed", {"per": ("partition", "reason"), "partition": 0, "reason": "a"}),
        ("disputed", {"per": ("partition", "reason"), "partition": 1, "reason": "a"}),
    ]
    with capture_logs(processors=[Throttle(hand)]) as lines:
        for event, facts in said * 2:
            log.error(event, **facts)
    assert len(lines) == len(said)


def test_a_line_that_does_not_say_what_makes_it_one_fact_is_never_left_out(hand: Hand) -> None:
    with capture_logs(processors=[Throttle(hand)]) as lines:
        for _ in range(100):
            log.warning("partition suspect", partition=3)
    assert len(lines) == 100


def test_a_fact_that_has_ended_is_counted_to_its_end(hand: Hand) -> None:
    """By the newest line of those that were left out, with its level and its place."""
    throttle = Throttle(hand)
    with capture_logs(processors=[throttle]) as lines:
        for offset in range(4):
            log.error("refused", per="reason", reason="bad_json", offset=offset)
        hand.s += EVERY_S / 2
        throttle.due()
        assert len(lines) == 1, "its minute is not over"
        hand.s += EVERY_S / 2
        for _ in range(3):
            throttle.due()
            hand.s += EVERY_S
    assert [line["offset"] for line in lines] == [0, 3], "once"
    assert lines[1]["left_out"] == 2 and lines[1]["log_level"] == "error"


def test_facts_without_end_are_not_hidden_and_do_not_grow_the_memory(hand: Hand) -> None:
    throttle = Throttle(hand)
    with capture_logs(processors=[throttle]) as lines:
        for n in range(2 * FACTS_AT_MOST):
            log.warning("held", per="reason", reason=n)
    assert len(lines) == 2 * FACTS_AT_MOST
    assert len(throttle._facts) == FACTS_AT_MOST
    hand.s += EVERY_S
    throttle.due()
    assert not throttle._facts


@given(
    said=st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from((0.0, 0.5, 20.0, 61.0))), max_size=60
    )
)
def test_every_line_is_shown_or_counted(said: list[tuple[str, float]]) -> None:
    hand = Hand()
    throttle = Throttle(hand)
    with capture_logs(processors=[throttle]) as lines:
        for reason, pause_s in said:
            log.warning("held", per="reason", reason=reason)
            hand.s += pause_s
            throttle.due()
        throttle.due(at_end=True)
    shown: Counter[str] = Counter()
    for line in lines:
        shown[line["reason"]] += 1 + line.get("left_out", 0)
    assert shown == Counter(reason for reason, _ in said)


def test_what_was_left_out_is_in_the_log_of_a_process_that_ends(
    capfd: pytest.CaptureFixture[str],
) -> None:
    pipe = configure_log(Settings(log_format="json"))
    try:
        for n in range(5):
            log.warning("held", per="reason", reason="no", offset=n)
    finally:
        pipe.close()
        structlog.reset_defaults()
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [(line["offset"], line.get("left_out")) for line in lines] == [(0, None), (4, 3)]


def by_minute(plant: Plant, lines: list[tuple[int, Any]]) -> list[int]:
    """Return the number of lines of each minute."""
    began = plant.clock.ms - 60_000 * MINUTES
    counted = Counter((at - began) // 60_000 for at, _ in lines)
    return [counted[minute] for minute in range(MINUTES)]


def test_a_redis_that_is_away_for_minutes_is_few_lines(predictor: Predictor) -> None:
    """It was 170 a minute. One says that it goes, and one that it is back."""
    plant = Plant(predictor)
    running = plant.worker()
    plant.say(n=3)
    running.turns(20)
    lines: list[tuple[int, Any]] = []
    throttle = Throttle(plant.clock.seconds)

    def keep(_logger: Any, _level: str, line: Any) -> Any:
        lines.append((plant.clock.ms, dict(line)))
        return line

    with capture_logs(processors=[throttle, keep]):
        running.store.away = True
        plant.say("another", n=3)
        running.turns(60 * MINUTES * 10, step_ms=100)
        throttle.due()
    assert max(by_minute(plant, lines)) <= AT_MOST
    assert [line["event"] for _, line in lines[:2]] == ["Redis is away", "batch held"]
    assert sum(1 + line.get("left_out", 0) for _, line in lines) > 100 * MINUTES
    lines.clear()
    with capture_logs(processors=[throttle, keep]):
        running.store.away = False
        running.turns(30, step_ms=100)
    (back,) = [line for _, line in lines if "Redis" in line["event"]]
    assert back["event"] == "Redis is back"
    assert back["away_s"] == pytest.approx(60 * MINUTES, abs=1)
    assert len(plant.predictions()) == 6


def test_poison_without_end_is_a_line_a_minute_of_each_reason(predictor: Predictor) -> None:
    plant = Plant(predictor)
    running = plant.worker()
    running.turns(2)
    throttle = Throttle(plant.clock.seconds)
    with capture_logs(processors=[throttle]) as lines:
        for _ in range(300):
            plant.log.append("utterances", b"c", b"{")
            plant.say(speaker_id=None)
            running.turns(2, step_ms=100)
        throttle.due(at_end=True)
    refused = [line for line in lines if line["event"] == "record refused"]
    assert Counter(line["reason"] for line in refused) == {"bad_json": 2, "wrong_type": 2}
    assert {line["offset"] for line in refused} == {0, 1, 598, 599}, "the first and the last"
    assert sum(1 + line.get("left_out", 0) for line in refused) == 600
