"""The batcher's promises, over random arrivals, batch sizes and clocks."""

from __future__ import annotations

from collections import Counter, defaultdict
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from state.window import StateKey
from stream.events.messages import Utterance
from stream.events.poison import Control
from stream.ports import Record
from stream.worker.batcher import Batcher, Item

DEADLINE_S = 0.005


def item(conversation: int | None, offset: int, *, partition: int = 0, at: float = 0.0) -> Item:
    record = Record("t", partition, offset, 0, b"k", b"v")
    if conversation is None:
        return Item(record, Control(), None, at)
    name = f"c{conversation}"
    utterance = Utterance(name, f"u{offset}", "s", text="x")
    return Item(record, utterance, StateKey(name, "id", partition), at)


def batcher(batch_max: int = 4, max_uncommitted: int = 1_000) -> Batcher:
    return Batcher(batch_max, DEADLINE_S, max_uncommitted)


CONVERSATIONS = st.lists(st.one_of(st.none(), st.integers(0, 4)), max_size=60)


@given(CONVERSATIONS, st.integers(1, 8), st.integers(1, 20), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=200)
def test_everything_leaves_once_in_conversation_order_whatever_the_interleaving(
    conversations: list[int | None], batch_max: int, cap: int, random: Random
) -> None:
    """Batches may be in flight together; commits confirm contiguous finished records only."""
    queue = batcher(batch_max, cap)
    left: list[Item] = []
    in_flight: list[tuple[Item, ...]] = []
    finished: set[int] = set()
    committed = 0
    arrivals = [item(c, i) for i, c in enumerate(conversations)]
    shuffle = random.random
    while arrivals or queue.depth or in_flight:
        if arrivals and shuffle() < 0.7:
            queue.put(arrivals.pop(0))
        batch = queue.next_batch(now=1.0)
        assert queue.depths.total() == queue.depth
        if batch:
            assert len(batch) <= batch_max
            keys = [i.key for i in batch if i.key is not None]
            assert len(set(keys)) == len(keys)
            busy = {i.key for b in in_flight for i in b}
            assert not busy & set(keys)
            in_flight.append(batch)
            left += batch
            assert len(left) - committed <= cap
        if in_flight and (shuffle() < 0.5 or not batch):
            done = in_flight.pop(int(shuffle() * len(in_flight)))
            queue.finish(done)
            finished |= {i.record.offset for i in done}
            while committed in finished:
                committed += 1
                queue.committed(0, 1)
    assert Counter(i.record.offset for i in left) == Counter(range(len(conversations)))
    order: dict[StateKey, list[int]] = defaultdict(list)
    for one in left:
        if one.key is not None:
            order[one.key].append(one.record.offset)
    assert all(offsets == sorted(offsets) for offsets in order.values())


def test_a_batch_waits_for_its_deadline_and_no_longer() -> None:
    queue = batcher()
    queue.put(item(1, 0, at=10.0))
    assert queue.next_batch(10.004) == ()
    assert queue.wait_s(10.004) is not None
    assert len(queue.next_batch(10.005)) == 1
    assert queue.wait_s(10.005) is None


def test_a_full_batch_leaves_at_once() -> None:
    queue = batcher(batch_max=2)
    queue.put(item(1, 0))
    assert queue.next_batch(0.0) == ()
    queue.put(item(2, 1))
    assert [i.record.offset for i in queue.next_batch(0.0)] == [0, 1]


def test_a_batch_leaves_at_once_when_what_is_left_behind_could_not_join_it() -> None:
    queue = batcher()
    queue.put(item(1, 0))
    queue.put(item(1, 1))
    assert [i.record.offset for i in queue.next_batch(0.0)] == [0]
    assert queue.next_batch(99.0) == (), "its conversation is still in flight"
    queue.finish([item(1, 0)])
    assert [i.record.offset for i in queue.next_batch(99.0)] == [1]


def test_a_partition_at_its_limit_waits_for_a_commit_and_does_not_stop_others() -> None:
    queue = batcher(batch_max=2, max_uncommitted=1)
    queue.put(item(1, 0, partition=0))
    queue.put(item(2, 1, partition=0))
    queue.put(item(3, 0, partition=1))
    first = queue.next_batch(1.0)
    assert [(i.record.partition, i.record.offset) for i in first] == [(0, 0), (1, 0)]
    assert queue.next_batch(1.0) == ()
    assert queue.full(0)
    assert queue.wait_s(1.0) is None, "only a commit can help"
    queue.finish(first)
    queue.committed(0, 1)
    assert [i.record.offset for i in queue.next_batch(1.0)] == [1]


def test_a_dropped_partition_leaves_nothing_behind() -> None:
    queue = batcher(max_uncommitted=1)
    for offset in range(3):
        queue.put(item(1, offset, partition=0))
    queue.put(item(1, 0, partition=1))
    queue.next_batch(1.0)
    assert (queue.depths[0], queue.depths[1]) == (2, 0), "released is not queued"
    queue.drop([0])
    assert queue.depth == sum(queue.depths.values()) == 0
    queue.put(item(1, 0, partition=0))
    assert [i.record.offset for i in queue.next_batch(1.0)] == [0]
