"""The windows that an owner caches are bounded, in number and in time."""

from __future__ import annotations

import pytest

from state.window import Conversation, StateKey, apply_nothing
from stream.worker.window_cache import WindowCache
from tests.fakes.clock import Clock
from tests.fakes.predictor import SmallPredictor


@pytest.fixture
def clock() -> Clock:
    return Clock()


def key(name: str, partition: int = 0) -> StateKey:
    return StateKey(name, "topic", partition)


CONVERSATION: Conversation = apply_nothing(None, spec=SmallPredictor().spec, offset=1).after


def names(cache: WindowCache) -> set[str]:
    return {name for name in "abcdef" if cache.get(key(name)) is not None}


def test_the_one_saved_longest_ago_leaves_first(clock: Clock) -> None:
    cache = WindowCache(3, clock.seconds)
    for name in "abcad":
        cache.put(key(name), CONVERSATION)
    assert names(cache) == {"a", "c", "d"}


def test_only_conversations_that_were_silent_for_long_leave(clock: Clock) -> None:
    cache = WindowCache(100, clock.seconds)
    for name in "abc":
        cache.put(key(name), CONVERSATION)
        clock.ms += 10_000
    cache.get(key("a"))  # a look is no word
    cache.put(key("b"), CONVERSATION)
    cache.drop_idle(15.0)
    assert names(cache) == {"b", "c"}
    clock.ms += 100_000
    cache.drop_idle(15.0)
    assert len(cache) == 0


def test_a_partition_that_left_takes_its_conversations_along(clock: Clock) -> None:
    cache = WindowCache(100, clock.seconds)
    cache.put(key("a"), CONVERSATION)
    cache.put(key("b", 1), CONVERSATION)
    cache.drop_partition(1)
    assert len(cache) == 1 and cache.get(key("a")) is CONVERSATION
