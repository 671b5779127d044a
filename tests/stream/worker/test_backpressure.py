"""Laws of what is paused and of how long the loop waits, whatever the queue does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.worker.backpressure import IDLE_POLL_S, Backpressure

HIGH, LOW, RETRY_S = 40, 10, 0.5


@dataclass(frozen=True)
class Facts:
    """The facts of the loop at the end of a turn."""

    depths: dict[int, int]
    unworkable: frozenset[int] = frozenset()
    pending: bool = False

    @property
    def queued(self) -> int:
        return sum(self.depths.values())

    def share(self, partition: int) -> int:
        """The queue's length if each partition had as many records in it."""
        return self.depths[partition] * len(self.depths)


@st.composite
def facts(draw: st.DrawFn, owned: int = 4) -> Facts:
    # Small numbers are drawn as often: else the queue is nearly always full, whatever waits.
    most = draw(st.sampled_from((2, LOW, HIGH)))
    depths = {p: draw(st.integers(0, most)) for p in range(owned)}
    unworkable = draw(st.frozensets(st.sampled_from(range(owned))))
    return Facts(depths, unworkable, draw(st.booleans()))


@dataclass
class Client:
    """A consumer that does as it is told, and remembers what it reads from."""

    flow: Backpressure = field(default_factory=lambda: Backpressure(HIGH, LOW, RETRY_S))
    paused: set[int] = field(default_factory=set)

    def told(self, now: Facts) -> set[int]:
        """Tell the facts, obey, and return what is paused then."""
        pause, resume = self.flow.balance(
            now.depths, owned=now.depths, unworkable=now.unworkable, pending=now.pending
        )
        assert not self.paused & set(pause), "paused already"
        assert set(resume) <= self.paused, "running already"
        self.paused = (self.paused | set(pause)) - set(resume)
        assert self.paused == self.flow.paused
        return self.paused


def after(earlier: Iterable[Facts]) -> Client:
    client = Client()
    for one in earlier:
        client.told(one)
    return client


history = st.lists(facts(), max_size=6)


@given(history, facts())
def test_a_caller_that_obeys_has_paused_owned_partitions_only(
    earlier: list[Facts], now: Facts
) -> None:
    assert after(earlier).told(now) <= set(now.depths)


@given(history, facts())
def test_the_same_facts_again_change_nothing(earlier: list[Facts], now: Facts) -> None:
    client = after(earlier)
    client.told(now)
    again = client.flow.balance(
        now.depths, owned=now.depths, unworkable=now.unworkable, pending=now.pending
    )
    assert again == ([], [])


@given(history, facts())
def test_what_may_not_be_worked_on_is_never_read(earlier: list[Facts], now: Facts) -> None:
    assert now.unworkable <= after(earlier).told(now)


@given(history, facts())
def test_nothing_is_read_while_a_batch_is_pending_or_the_queue_is_full(
    earlier: list[Facts], now: Facts
) -> None:
    if now.pending or now.queued >= HIGH:
        assert after(earlier).told(now) == set(now.depths)


@given(history, facts())
def test_a_queue_down_to_low_water_pauses_only_what_cannot_be_worked_on(
    earlier: list[Facts], now: Facts
) -> None:
    """Each share is judged by the same marks as the whole, so nothing is left paused for ever."""
    if not now.pending and all(now.share(p) <= LOW for p in now.depths):
        assert after(earlier).told(now) == now.unworkable


@given(history, facts())
def test_a_partition_within_its_share_waits_for_no_other_while_the_queue_has_room(
    earlier: list[Facts], now: Facts
) -> None:
    if not now.pending and now.queued <= LOW:
        paused = after(earlier).told(now)
        assert not {p for p in now.depths if now.share(p) <= LOW} - now.unworkable & paused


@given(history, facts())
def test_a_partition_at_its_share_is_paused_and_so_until_it_has_drained(
    earlier: list[Facts], now: Facts
) -> None:
    client = after(earlier)
    over = {p for p in now.depths if now.share(p) >= HIGH}
    assert over <= client.told(now)
    half = Facts({p: LOW // 4 + 1 for p in now.depths})  # above a share of low water
    assert over <= client.told(half)
    assert not client.told(Facts({p: LOW // 4 for p in now.depths}))


def test_a_full_queue_is_read_again_at_low_water_and_not_before() -> None:
    client = Client()
    full, nearly, drained = ({p: n for p in range(40)} for n in (1, 0, 0))
    nearly |= {p: 1 for p in range(LOW + 1)}
    drained |= {p: 1 for p in range(LOW)}
    assert client.told(Facts(full)) == set(range(40))
    assert client.told(Facts(nearly)) == set(range(40))
    assert client.told(Facts(drained)) == set(range(LOW)), "those have a fortieth of the queue"


@given(st.lists(st.integers(0, 30), min_size=1, max_size=40), st.integers(1, 12))
def test_the_queue_never_holds_more_than_high_water_and_one_poll(
    polls: list[int], answered: int
) -> None:
    client, depths = Client(), {0: 0, 1: 0}
    for number, records in enumerate(polls):
        partition = number % 2
        if partition not in client.paused:
            depths[partition] += records
        assert sum(depths.values()) < HIGH + 30
        for p in depths:
            depths[p] = max(0, depths[p] - answered)
        client.told(Facts(dict(depths)))


@given(history, facts(), st.frozensets(st.sampled_from(range(4))))
def test_a_partition_that_comes_back_is_taken_for_running(
    earlier: list[Facts], now: Facts, left: frozenset[int]
) -> None:
    client = after(earlier)
    client.flow.forget(left)
    client.paused -= left  # as any client does with what is assigned to it
    assert now.unworkable <= client.told(now)


@given(st.floats(0, 1e6), st.floats(0, 2 * RETRY_S))
def test_a_try_is_put_off_by_the_retry_time(now: float, later: float) -> None:
    flow = Backpressure(HIGH, LOW, RETRY_S)
    assert flow.may_try(now), "nothing failed yet"
    flow.postpone(now)
    assert flow.may_try(now + later) == (now + later >= now + RETRY_S)


@given(
    st.floats(0, 2 * RETRY_S),
    st.booleans(),
    st.booleans(),
    st.none() | st.floats(0, 10),
)
def test_a_wait_ends_in_time_for_whatever_comes_next(
    since: float, rebuilding: bool, pending: bool, due_s: float | None
) -> None:
    flow = Backpressure(HIGH, LOW, RETRY_S)
    flow.postpone(1.0)
    now = 1.0 + since
    wait_s = flow.wait_s(now, rebuilding=rebuilding, pending=pending, due_s=due_s)
    assert 0 <= wait_s <= IDLE_POLL_S, "a stop is seen soon"
    if rebuilding:
        assert wait_s == 0, "a rebuild goes on at once"
    elif pending:
        assert now + wait_s <= max(now, 1.0 + RETRY_S) + 1e-9, "the next try is not late"
    elif due_s is not None:
        assert wait_s <= due_s, "the next batch is not late"


@pytest.mark.parametrize(
    ("pending", "due_s", "expected"),
    [(False, None, IDLE_POLL_S), (False, 0.03, 0.03), (True, 0.0, IDLE_POLL_S)],
)
def test_an_idle_worker_waits_as_long_as_it_may(
    pending: bool, due_s: float | None, expected: float
) -> None:
    """Held back, what is queued is not due: without this, a store that is away costs a core."""
    flow = Backpressure(HIGH, LOW, RETRY_S)
    flow.postpone(0.0)
    assert flow.wait_s(0.0, rebuilding=False, pending=pending, due_s=due_s) == expected
