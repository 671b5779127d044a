"""The caches of an owner are bounded, in number and in time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from state.memory_store import MemoryStore
from state.store import Noted, StoreUnavailable
from state.window import Conversation, StateKey, apply_nothing
from stream.worker.window_cache import Places, WindowCache
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


class Counting(MemoryStore):
    """A store that counts the keys noted."""

    noted = 0

    def note_many(self, keys: Sequence[StateKey]) -> list[Noted]:
        self.noted += len(keys)
        return super().note_many(keys)


@pytest.fixture
def store(clock: Clock) -> Counting:
    return Counting(SmallPredictor().spec, now=clock.seconds)


def places(store: MemoryStore, clock: Clock, capacity: int = 100) -> Places:
    return Places(store, capacity=capacity, again_s=900.0, clock_s=clock.seconds)


def test_a_conversation_is_noted_once_and_again_before_its_note_expires(
    store: Counting, clock: Clock
) -> None:
    mine, keys = places(store, clock), [StateKey(name, "t", 0) for name in "ab"]
    for _ in range(5):
        mine.note(keys)
    assert store.noted == 2
    clock.ms += 899_000
    mine.note(keys)
    assert store.noted == 2
    clock.ms += 1_000
    mine.note(keys)
    assert store.noted == 4


def test_conversations_that_ended_do_not_stay_and_the_rest_are_bounded(
    store: Counting, clock: Clock
) -> None:
    mine = places(store, clock, capacity=10)
    mine.note([StateKey(f"c{i}", "t", 0) for i in range(25)])
    assert len(mine) == 10
    clock.ms += 900_000
    mine.note([StateKey("new", "t", 0)])
    assert len(mine) == 1


def test_a_partition_that_left_is_forgotten_and_read_again(store: Counting, clock: Clock) -> None:
    """While it was another's, splits of it may have come and gone."""
    mine, key = places(store, clock), StateKey("c", "t", 0)
    mine.note([key])
    mine.drop_partition(0)
    assert not len(mine)
    store.note_many([StateKey("c", "t", 1)])
    assert not mine.is_split(key)
    mine.note([key])
    assert mine.is_split(key) and mine.found() == [], "found by the other one"


def test_a_store_that_is_away_leaves_nothing_noted(store: Counting, clock: Clock) -> None:
    mine, key = places(store, clock), StateKey("c", "t", 0)

    def away(keys: Sequence[StateKey]) -> list[Noted]:
        raise StoreUnavailable("nobody answers")

    answering, store.note_many = store.note_many, away  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        mine.note([key])
    store.note_many = answering  # type: ignore[method-assign]
    mine.note([key])
    assert store.noted == 1 and len(mine) == 1


def test_a_split_found_is_reported_though_the_step_failed_after_it(
    store: Counting, clock: Clock
) -> None:
    mine = places(store, clock)
    mine.note([StateKey("c", "t", 0)])
    mine.note([StateKey("c", "t", 1)])  # and then the batch is held, and done again
    mine.note([StateKey("c", "t", 1)])
    assert [split.partitions for split in mine.found()] == [(0, 1)]
    assert mine.found() == []
