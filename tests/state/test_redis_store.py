"""Tests that only Redis can answer: keys and their lives, one slot, lost answers, unfit servers."""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.cluster import RedisCluster

from state.redis_store import CLAIM, LIBRARY, RedisStore, fence_key, library_source, state_keys
from state.store import (
    Save,
    Saved,
    SaveResult,
    Store,
    StoreChanged,
    StoredOutput,
    StoreRefused,
    StoreUnavailable,
)
from state.window import Change, Conversation, StateKey, StateSpec
from stream.local import servers
from stream.local.servers import RunningRedis, free_ports
from tests.conftest import ROOT
from tests.fakes.resp import RespServer, info

pytestmark = pytest.mark.integration

Make = Callable[..., StateSpec]
Say = Callable[..., Change]
OUTPUT = StoredOutput("predicted", b"{}")


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RunningRedis]:
    """A redis-server of this test's own, to be configured, emptied and ended at will."""
    with servers.redis_server(tmp_path) as running:
        yield running


def as_text(key: bytes | str) -> str:
    return key if isinstance(key, str) else key.decode()


def key_named(name: str | None = None) -> StateKey:
    return StateKey(name or uuid.uuid4().hex, "topic", 0)


def first_save(spec: StateSpec, say: Say, key: StateKey, offset: int = 0) -> Save:
    return Save(key, 1, -1, say(spec, None, offset), OUTPUT, 0)


@contextlib.contextmanager
def opened(spec: StateSpec, url: str, timeout_s: float = 2.0) -> Iterator[RedisStore]:
    store = RedisStore(spec, url, timeout_s=timeout_s)
    try:
        yield store
    finally:
        store.close()


def test_the_redis_store_is_a_store(make_spec: Make, redis_server: RunningRedis) -> None:
    with opened(make_spec(), redis_server.url) as store:
        seam: Store = store
        seam.check()


def test_a_changed_function_needs_a_new_name() -> None:
    """Workers of two versions share a server: `REPLACE` under one name would change both.

    If this fails: rename the library and its functions (v1 -> v2), then pin the new source.
    """
    pinned = ("emotrack_v4", "3a84a2adb6c1c31005233fcd5d79d58dec3619c7430b3f5aeea5e43b91c22d8f")
    assert (LIBRARY, hashlib.sha256(library_source().encode()).hexdigest()) == pinned
    assert library_source().count("emotrack_v") == 4


def test_every_key_of_a_state_lives_for_twice_idle_and_no_other_key_is_made(
    make_spec: Make, say: Say, own_redis: RunningRedis
) -> None:
    spec, key = make_spec(idle_s=30, window=2, duplicate_horizon=2), key_named("{caf\u00e9}")
    client = redis.Redis.from_url(own_redis.url)
    with opened(spec, own_redis.url) as store:
        store.check()
        token = store.claim("topic", 0)
        stored: Conversation | None = None
        for offset in range(6):
            for name in client.keys("*"):
                if not as_text(name).startswith("et:fence:"):
                    client.pexpire(name, 1_000)  # every write must renew every life
            change = say(spec, stored, offset, speaker_id=f"s{offset % 3}")
            expected = -1 if stored is None else stored.offset
            store.save_many([Save(key, token, expected, change, OUTPUT, 0)])
            stored = change.after
            lives = {name: client.pttl(name) for name in map(as_text, client.keys("*"))}
            assert set(lives) == {*state_keys(key), fence_key("topic", 0)}
            assert all(59_000 < lives[name] <= 60_000 for name in state_keys(key))
            assert lives[fence_key("topic", 0)] == -1, "it outlives the states it fences"
    client.close()


def test_a_state_whose_clock_is_ahead_lives_longer_by_that(
    make_spec: Make, say: Say, own_redis: RunningRedis
) -> None:
    """Its session goes on by the log's clock, so a missing key would be no proof of its end."""
    spec, key = make_spec(idle_s=30), key_named("ahead")
    client = redis.Redis.from_url(own_redis.url)
    with opened(spec, own_redis.url) as store:
        store.check()
        token = store.claim("topic", 0)
        change = say(spec, None, 0, timestamp_ms=int(time.time() * 1000) + 600_000)
        store.save_many([Save(key, token, -1, change, OUTPUT, 0)])
        lives = [client.pttl(name) for name in state_keys(key) if client.exists(name)]
        assert lives
        assert all(650_000 < life <= 660_000 for life in lives)
    client.close()


@pytest.mark.parametrize("name", ["c", "}{", "{}", "{a}{b}", "x" * 256, "\U0001f642"])
def test_all_keys_of_a_state_lie_in_one_slot(name: str) -> None:
    slots = {redis.crc.key_slot(k.encode()) for k in state_keys(key_named(name))}
    assert len(slots) == 1


def test_states_spread_over_the_slots() -> None:
    slots = {redis.crc.key_slot(state_keys(key_named(f"c{i}"))[0].encode()) for i in range(500)}
    assert len(slots) > 450


def test_a_cluster_runs_the_function_in_its_pipelines(
    make_spec: Make, say: Say, tmp_path: Path
) -> None:
    """A server in cluster mode refuses undeclared keys and keys of two slots."""
    with servers.redis_server(tmp_path, "--cluster-enabled", "yes") as running:
        client = redis.Redis.from_url(running.url)
        client.cluster("ADDSLOTSRANGE", 0, 16383)
        while client.cluster("info")["cluster_state"] != "ok":
            client.ping()
        spec, keys = make_spec(), [key_named() for _ in range(20)]
        with opened(spec, running.url) as store:
            store.check()
            assert store.claim("topic", 0) > 0
            answers = store.save_many([first_save(spec, say, k) for k in keys])
            assert {a.result for a in answers} == {SaveResult.SAVED}
            assert [loaded.offset for loaded in store.load_many(keys)] == [0] * 20
            commands = [store.encoded(first_save(spec, say, k)) for k in keys]
        cluster = RedisCluster(host="127.0.0.1", port=running.port)
        pipeline = cluster.pipeline()  # type: ignore[no-untyped-call]  # redis-py leaves it bare
        for command in commands:
            pipeline.fcall(*command)
        assert pipeline.execute() == [[1, 1, 0]] * 20, "REPLAY: it was saved before"
        cluster.close()
        client.close()


class DroppingProxy:
    """A TCP proxy on loopback that passes requests on and drops the next answers when set to."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.drop_answers = 0
        self.dropped = 0
        self._sockets: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._upstream))
                self._sockets += [client, server]
                for source, sink, answers in ((client, server, False), (server, client, True)):
                    thread = threading.Thread(target=self._pump, args=(source, sink, answers))
                    self._threads.append(thread)
                    thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if answers and self.drop_answers:
                    self.drop_answers -= 1
                    self.dropped += 1
                else:
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        for thread in self._threads:
            thread.join(5)


@pytest.fixture
def proxy(redis_server: RunningRedis) -> Iterator[DroppingProxy]:
    """A proxy before the session's Redis."""
    running = DroppingProxy(redis_server.port)
    yield running
    running.close()


def test_a_save_whose_answer_is_lost_is_sent_again_and_answers_replay(
    make_spec: Make, say: Say, proxy: DroppingProxy, redis_server: RunningRedis
) -> None:
    spec, key = make_spec(), key_named()
    with opened(spec, f"redis://127.0.0.1:{proxy.port}/0", timeout_s=0.3) as store:
        store.check()
        proxy.drop_answers = 1
        assert store.save_many([first_save(spec, say, key)]) == [Saved(SaveResult.REPLAY, 1, 0)]
        assert proxy.dropped == 1
        assert len(store.entries(key).rows) == 1


def test_a_server_that_never_answers_is_unavailable_and_a_later_try_is_right(
    make_spec: Make, say: Say, proxy: DroppingProxy
) -> None:
    spec, key = make_spec(), key_named()
    with opened(spec, f"redis://127.0.0.1:{proxy.port}/0", timeout_s=0.2) as store:
        store.check()
        proxy.drop_answers = 1_000
        with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{proxy.port} cannot be reached"):
            store.save_many([first_save(spec, say, key)])
        proxy.drop_answers = 0
        (saved,) = store.save_many([first_save(spec, say, key)])
        assert saved == Saved(SaveResult.REPLAY, 1, 0), "the first try had been applied"


def test_a_read_torn_by_another_writer_is_read_again(
    make_spec: Make, say: Say, redis_server: RunningRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zombie's save between our four reads must not make a healthy state look damaged."""
    spec, key = make_spec(), key_named()
    with opened(spec, redis_server.url) as store:
        first = first_save(spec, say, key)
        store.check()
        store.save_many([first])
        torn = store._read([key], atomic=True)[0]
        second = say(spec, first.change.after, 1)
        store.save_many([Save(key, 1, 0, second, OUTPUT, 0)])
        read = store._read
        rows_of_before = [torn[0], *read([key], atomic=True)[0][1:]]
        monkeypatch.setattr(
            store, "_read", lambda k, atomic: read(k, atomic=True) if atomic else [rows_of_before]
        )
        (loaded,) = store.load_many([key])
        assert loaded.corrupt is None
        assert loaded.offset == 1


def test_a_library_that_went_with_a_restart_is_loaded_again(
    make_spec: Make, say: Say, own_redis: RunningRedis
) -> None:
    spec = make_spec()
    client = redis.Redis.from_url(own_redis.url)
    with opened(spec, own_redis.url) as store:
        assert store.claim("topic", 0) > 0, "needs no check() before"
        client.function_flush()
        saves = [first_save(spec, say, key_named()) for _ in range(3)]
        assert [s.result for s in store.save_many(saves)] == [SaveResult.SAVED] * 3
    client.close()


def test_a_library_of_our_name_with_other_source_is_replaced(
    make_spec: Make, say: Say, own_redis: RunningRedis
) -> None:
    other = f"#!lua name={LIBRARY}\nredis.register_function('{CLAIM}', function() return 7 end)"
    client = redis.Redis.from_url(own_redis.url)
    client.function_load(other)
    with opened(make_spec(), own_redis.url) as store:
        assert store.claim("topic", 0) == 7
        store.check()
        assert store.claim("topic", 0) > 7
        loads = client.info("commandstats")["cmdstat_function|load"]["calls"]
        store.check()
        assert client.info("commandstats")["cmdstat_function|load"]["calls"] == loads
    client.close()


def test_a_key_of_another_type_counts_as_damaged_and_is_replaced(
    make_spec: Make, say: Say, redis_server: RunningRedis
) -> None:
    spec = make_spec()
    client = redis.Redis.from_url(redis_server.url)
    with opened(spec, redis_server.url) as store:
        store.check()
        for place in range(4):
            key = key_named()
            store.save_many([first_save(spec, say, key)])
            client.set(state_keys(key)[place], "intruder")
            (loaded,) = store.load_many([key])
            assert loaded.foreign
            assert loaded.corrupt is not None
            assert key.conversation_id in loaded.corrupt
            save = Save(key, 1, loaded.offset, say(spec, None, 5), OUTPUT, 0, replace_foreign=True)
            (saved,) = store.save_many([save])
            assert saved == Saved(SaveResult.SAVED, 1, 5)
            assert store.load_many([key])[0].corrupt is None
    client.close()


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_redis_that_may_evict_is_refused_with_the_line_that_cures_it(
    make_spec: Make, own_redis: RunningRedis, policy: str
) -> None:
    client = redis.Redis.from_url(own_redis.url)
    client.config_set("maxmemory-policy", policy)
    with opened(make_spec(), own_redis.url) as store:
        with pytest.raises(StoreRefused, match="CONFIG SET maxmemory-policy noeviction"):
            store.check()
        client.config_set("maxmemory-policy", "noeviction")
        store.check()
    client.close()


def test_a_key_that_is_missing_since_others_were_evicted_is_not_taken_for_a_new_one(
    make_spec: Make, say: Say, own_redis: RunningRedis
) -> None:
    """Our own key may have stayed, and the look once a second comes too late for this load."""
    spec, key = make_spec(), key_named()
    client = redis.Redis.from_url(own_redis.url)
    with opened(spec, own_redis.url) as store:
        store.check()
        store.identify()
        store.save_many([first_save(spec, say, key)])
        client.set("filler", "x" * 200_000, ex=1_000)
        client.config_set("maxmemory-policy", "volatile-random")
        for name in client.keys("et:*"):
            client.persist(name)  # so that it is the filler that goes
        client.config_set("maxmemory", client.info("memory")["used_memory"] - 100_000)
        client.set("writes", "1")
        client.config_set("maxmemory", 0)
        assert client.info("stats")["evicted_keys"] == 1
        client.delete(*state_keys(key))
        with pytest.raises(StoreChanged):
            store.load_many([key])
    client.close()


def test_a_full_redis_is_unavailable_writes_nothing_and_serves_again_with_room(
    make_spec: Make, say: Say, own_redis: RunningRedis
) -> None:
    spec, key = make_spec(), key_named()
    client = redis.Redis.from_url(own_redis.url)
    with opened(spec, own_redis.url) as store:
        store.check()
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailable, match=r"cannot serve now.*maxmemory"):
            store.save_many([first_save(spec, say, key)])
        assert store.load_many([key])[0].offset == -1
        client.config_set("maxmemory", 0)
        assert store.save_many([first_save(spec, say, key)])[0].result is SaveResult.SAVED
    client.close()


def test_a_replica_is_unavailable_for_writing(
    make_spec: Make, say: Say, own_redis: RunningRedis
) -> None:
    spec = make_spec()
    client = redis.Redis.from_url(own_redis.url)
    with opened(spec, own_redis.url) as store:
        store.check()
        client.replicaof("127.0.0.1", free_ports(1)[0])
        with pytest.raises(StoreUnavailable, match="is a replica"):
            store.save_many([first_save(spec, say, key_named())])
        client.replicaof("NO", "ONE")
        saved = store.save_many([first_save(spec, say, key_named())])
        assert saved[0].result is SaveResult.SAVED
    client.close()


def test_a_store_survives_a_restart_of_the_server(
    make_spec: Make, say: Say, tmp_path: Path
) -> None:
    spec, key = make_spec(), key_named()
    with servers.redis_server(tmp_path) as running, opened(spec, running.url) as store:
        store.check()
        token = store.claim("topic", 0)
        store.save_many([first_save(spec, say, key)])
        running.server.stop(hard=True)
        with pytest.raises(StoreUnavailable, match="start it, or correct the address"):
            store.load_many([key])
        running.server.start(lambda: servers.answers(running.port))
        assert store.load_many([key])[0].offset == -1
        assert store.save_many([first_save(spec, say, key)])[0].result is SaveResult.SAVED
        assert store.claim("topic", 0) > token


def test_a_wrong_password_is_refused_and_never_printed(
    make_spec: Make, own_redis: RunningRedis
) -> None:
    client = redis.Redis.from_url(own_redis.url)
    client.config_set("requirepass", "right")
    for password in ("hush", ""):
        url = f"redis://:{password}@127.0.0.1:{own_redis.port}/0"
        with opened(make_spec(), url) as store, pytest.raises(StoreRefused) as caught:
            store.check()
        assert "password" in str(caught.value)
        assert "hush" not in str(caught.value)
    with opened(make_spec(), f"redis://:right@127.0.0.1:{own_redis.port}/0") as store:
        store.check()
    client.close()


def test_an_unreachable_redis_is_named_without_its_password(make_spec: Make) -> None:
    (port,) = free_ports(1)
    with opened(make_spec(), f"redis://me:hush@127.0.0.1:{port}/0") as store:
        with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{port}.*start it") as caught:
            store.check()
        assert "hush" not in str(caught.value)


def test_older_data_behind_a_new_connection_is_never_returned_as_current(
    make_spec: Make, say: Say, tmp_path: Path
) -> None:
    """A failover, or a restart from a snapshot: the epoch key is there, the last write is not."""
    spec, key = make_spec(), key_named()
    with servers.redis_server(tmp_path) as running, opened(spec, running.url) as store:
        store.check()
        store.identify()
        first = say(spec, None, 0)
        store.save_many([Save(key, 1, -1, first, OUTPUT, 0)])
        redis.Redis.from_url(running.url).save()  # what it comes back with
        store.save_many([Save(key, 1, 0, say(spec, first.after, 1), OUTPUT, 0)])
        running.server.stop(hard=True)
        running.server.start(lambda: servers.answers(running.port))
        with pytest.raises(StoreChanged):
            store.load_many([key])
        store.identify()
        (loaded,) = store.load_many([key])
        assert loaded.offset == 0


def test_a_server_that_is_no_cluster_is_refused_with_the_wrong_setting(
    make_spec: Make, redis_server: RunningRedis
) -> None:
    store = RedisStore(make_spec(), redis_server.url, cluster=True)
    with pytest.raises(StoreRefused, match="leave EMOTRACK_REDIS_CLUSTER unset"):
        store.check()


def test_a_node_of_a_cluster_is_refused_with_the_missing_setting(
    make_spec: Make, cluster_url: str
) -> None:
    refused = pytest.raises(StoreRefused, match="EMOTRACK_REDIS_CLUSTER=true")
    with opened(make_spec(), cluster_url) as store, refused:
        for n in range(20):  # some key is on another node
            store.claim("topic", n)


@pytest.mark.parametrize("url", ["127.0.0.1:6379", "http://127.0.0.1", "redis://h:port/0", ""])
def test_an_address_that_is_none_is_refused(make_spec: Make, url: str) -> None:
    with pytest.raises(StoreRefused, match="redis://HOST:PORT/DB"):
        RedisStore(make_spec(), url)


def test_closing_twice_is_fine(make_spec: Make, redis_server: RunningRedis) -> None:
    store = RedisStore(make_spec(), redis_server.url)
    store.check()
    store.close()
    store.close()


def old_redis(version: str, words: list[bytes]) -> bytes:
    """As much of a Redis 6.2 as answers INFO, and no FUNCTION."""
    if words[0] == b"INFO":
        return info(redis_version=version)
    return b"-ERR unknown command `%s`, with args beginning with: \r\n" % words[0]


@pytest.mark.parametrize(
    ("version", "says"), [("6.2.14", "Redis 6.2.14.*needs Redis >= 7"), ("7.0.0", "no Functions")]
)
def test_a_redis_without_functions_is_refused_with_the_cure(
    make_spec: Make, version: str, says: str
) -> None:
    refused = pytest.raises(StoreRefused, match=says)
    old = RespServer(partial(old_redis, version))
    with old, opened(make_spec(), old.url) as store, refused:
        store.check()


def test_setting_aside_needs_no_right_that_the_page_does_not_grant(
    own_redis: RunningRedis, make_spec: Make, say: Say
) -> None:
    """A user made before there was such a thing still may; a missing right would end the worker."""
    page = (ROOT / "docs/security.md").read_text("utf-8")
    (line,) = re.findall(r"^ACL SETUSER (emotrack on .*)$", page, re.MULTILINE)
    with redis.Redis(port=own_redis.port) as client:
        client.execute_command("ACL", "SETUSER", *line.split())
    url = own_redis.url.replace("://", "://emotrack:PASSWORD@")
    specs = make_spec(window=5), make_spec(window=3)
    with contextlib.ExitStack() as stack:
        one, other = (stack.enter_context(contextlib.closing(RedisStore(s, url))) for s in specs)
        one.check()
        key = key_named()
        one.save_many([first_save(specs[0], say, key)])
        other.set_aside([key], 1)
        (found,) = one.load_aside([key])
    assert found is not None and found.offset == 0


def test_a_state_that_is_just_being_written_is_not_set_aside(
    own_redis: RunningRedis, make_spec: Make, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of one write and half of another would be a state that never was."""
    specs = make_spec(window=5), make_spec(window=3)
    with contextlib.ExitStack() as stack:
        one, other = (
            stack.enter_context(contextlib.closing(RedisStore(s, own_redis.url))) for s in specs
        )
        one.check()
        key = key_named()
        first = first_save(specs[0], say, key)
        one.save_many([first])
        state = one.load_many([key])[0].conversation
        next_one = Save(key, 1, 0, say(specs[0], state, 1), OUTPUT, 0)
        execute, written = redis.client.Pipeline.execute, list[bool]()

        def interleaved(self: redis.client.Pipeline, raise_on_error: bool = True) -> list[Any]:
            commands = list(self.command_stack)
            if written or commands[0][0][0] != "HMGET":
                return execute(self, raise_on_error)
            self.command_stack = commands[:1]
            began = execute(self, raise_on_error)
            written.append(True)
            one.save_many([next_one])
            self.command_stack = commands[1:]
            return began + execute(self, raise_on_error)

        monkeypatch.setattr(redis.client.Pipeline, "execute", interleaved)
        other.set_aside([key], 1)
        assert written and one.load_aside([key]) == [None]
        other.set_aside([key], 1)
        (found,) = one.load_aside([key])
    assert found is not None and found.offset == 1
