"""A Redis host whose clock jumps: fence tokens, and lives of keys that end all at once."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from state.redis_store import RedisStore, fence_key, library_source
from state.store import Restore, Save, SaveResult, StoreChanged, StoredOutput
from state.window import Change, StateKey, StateSpec
from stream.local import servers
from stream.local.servers import RunningRedis

pytestmark = pytest.mark.integration

Make = Callable[..., StateSpec]
Say = Callable[..., Change]
OUTPUT = StoredOutput("predicted", b"{}")
NOW_S, YEAR_S = 1_790_000_000, 31_536_000
EXACT = 2**53  # of a double: where + 1 is lost


class HandClock:
    """A redis-server whose function takes the time from a key of ours; no other word of it changed.

    Lives of keys go by the server's own clock: `expire` is what a jump ahead does to them.
    """

    def __init__(self, running: RunningRedis, spec: StateSpec) -> None:
        self.client = redis.Redis(port=running.port)
        self.store = RedisStore(spec, running.url)
        self.store.check()
        source = library_source()
        assert source.count("redis.call('TIME')") == 1
        taken = source.replace("redis.call('TIME')", "redis.call('LRANGE', 'clock', 0, 1)")
        self.client.function_load(taken, replace=True)
        self.set(NOW_S)

    def set(self, seconds: float) -> None:
        self.client.delete("clock")
        self.client.rpush("clock", int(seconds), 123_456)

    def expire(self, seconds: float) -> None:
        """Let so much time pass for every key that has a life."""
        for key in self.client.scan_iter("*"):
            left = self.client.pttl(key)
            if left > 0:
                self.client.pexpire(key, left - int(1000 * seconds))


@pytest.fixture
def clock(tmp_path: Path, make_spec: Make) -> Iterator[HandClock]:
    with servers.redis_server(tmp_path) as running:
        made = HandClock(running, make_spec())
        yield made
        made.store.close()
        made.client.close()


def test_tokens_never_go_back_when_the_clock_does(clock: HandClock) -> None:
    tokens = []
    for seconds in (NOW_S, NOW_S + YEAR_S, NOW_S, NOW_S - YEAR_S, NOW_S + 2 * YEAR_S, NOW_S):
        clock.set(seconds)
        tokens.append(clock.store.claim("topic", 0))
    assert tokens == sorted(set(tokens))
    assert tokens[1] == (NOW_S + YEAR_S) * 1_000_000 + 123_456


def test_a_clock_that_stood_in_another_age_leaves_tokens_exact(clock: HandClock) -> None:
    for seconds in (9e9, 9e12, 0, NOW_S):  # the years 2255 and 287,000, and 1970
        clock.set(seconds)
        tokens = [clock.store.claim("topic", 0) for _ in range(3)]
        assert tokens == [tokens[0], tokens[0] + 1, tokens[0] + 2]
        assert tokens == sorted(set(tokens))
        assert tokens[-1] < EXACT / 1.9
        assert clock.client.get(fence_key("topic", 0)) == b"%d" % tokens[-1]


def test_a_worker_is_not_locked_out_after_a_jump_and_back(
    clock: HandClock, make_spec: Make, say: Say
) -> None:
    """States outlive the claim by far: their owner claimed once, a year ahead, and wrote for hours.

    The token's own key used to expire meanwhile. The next owner then claimed a token of today, was
    fenced by every state, and a rebuild of them was disputed for ever.
    """
    spec, key = make_spec(), StateKey("c", "topic", 0)
    clock.set(NOW_S + YEAR_S)
    ahead = clock.store.claim("topic", 0)
    change = say(spec, None, 0)
    for _ in range(3):
        clock.expire(0.9 * 2 * spec.recurrence.idle_s)  # the owner goes on writing
        clock.store.save_many([Save(key, ahead, -1, change, OUTPUT, 0)])
        clock.store.restore_many([Restore(key, ahead, 0, change.after)])
    clock.set(NOW_S)
    token = clock.store.claim("topic", 0)
    assert token > ahead
    (saved,) = clock.store.restore_many([Restore(key, token, 0, change.after)])
    assert saved.result is SaveResult.SAVED


def test_an_emptied_store_has_no_state_that_a_token_of_today_could_not_write(
    clock: HandClock, make_spec: Make, say: Say
) -> None:
    spec, key = make_spec(), StateKey("c", "topic", 0)
    clock.store.identify()
    clock.set(NOW_S + YEAR_S)
    ahead = clock.store.claim("topic", 0)
    first = say(spec, None, 0)
    clock.store.save_many([Save(key, ahead, -1, first, OUTPUT, 0)])
    clock.client.flushall()
    clock.set(NOW_S)
    with pytest.raises(StoreChanged):
        clock.store.verify()
    clock.store.identify()
    token = clock.store.claim("topic", 0)
    assert token < ahead, "the stored one is lost with all states it could fence"
    (saved,) = clock.store.save_many([Save(key, token, -1, first, OUTPUT, 0)])
    assert saved.result is SaveResult.SAVED
    # Who slept through it and writes with the old token from what it remembers builds on nothing.
    (late,) = clock.store.save_many([Save(key, ahead, 5, say(spec, first.after, 6), OUTPUT, 0)])
    assert late.result is SaveResult.LOST


@pytest.mark.parametrize("way", ["load", "verify", "identify"])
def test_a_jump_ahead_that_ends_live_states_is_a_changed_store(
    clock: HandClock, make_spec: Make, say: Say, way: str
) -> None:
    """Their keys expire at once; a missing key was then taken for a new conversation."""
    spec, key = make_spec(), StateKey("c", "topic", 0)
    idle_s = spec.recurrence.idle_s
    before = clock.store.identify()
    clock.store.save_many([Save(key, 1, -1, say(spec, None, 0), OUTPUT, 0)])
    clock.expire(0.9 * idle_s)  # the session is open, nobody wrote it again
    clock.store.verify()
    clock.expire(1.2 * idle_s)
    with contextlib.closing(RedisStore(spec, f"redis://127.0.0.1:{port_of(clock)}/0")) as other:
        if way == "identify":  # a worker that starts after it
            assert other.identify() != before
            return
    with pytest.raises(StoreChanged):
        if way == "load":
            clock.store.load_many([key])
        else:
            clock.store.verify()


def test_a_jump_that_ends_no_open_session_changes_nothing(
    clock: HandClock, make_spec: Make, say: Say
) -> None:
    spec, key = make_spec(), StateKey("c", "topic", 0)
    clock.store.identify()
    clock.store.save_many([Save(key, 1, -1, say(spec, None, 0), OUTPUT, 0)])
    clock.expire(0.8 * spec.recurrence.idle_s)
    clock.store.verify()
    assert clock.store.load_many([key])[0].offset == 0


def port_of(clock: HandClock) -> int:
    port: int = clock.client.connection_pool.connection_kwargs["port"]
    return port
