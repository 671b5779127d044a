"""A server that is no longer the one to write to: the connection to it is given up."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from state.redis_store import RedisStore, state_keys
from state.store import (
    Save,
    SaveResult,
    StoreChanged,
    StoredOutput,
    StoreUnavailable,
)
from state.window import Change, StateKey, StateSpec
from stream.local import servers
from stream.local.servers import RunningRedis, ServerMissing, free_ports
from tests.chaos.proxy import Proxy
from tests.conftest import missing
from tests.servers import other_redis_servers, redis_cluster

pytestmark = pytest.mark.integration

Make = Callable[..., StateSpec]
Say = Callable[..., Change]
OUTPUT = StoredOutput("predicted", b"{}")
RECOVERS_S = 15.0
AT_ONCE = ("--shutdown-timeout", "0", "--enable-debug-command", "local")


class Pair:
    """Two servers, the address that names one of them, and a store at that address."""

    def __init__(
        self, directory: Path, stack: contextlib.ExitStack, spec: StateSpec, program: str
    ) -> None:
        self.running: list[RunningRedis] = []
        for name in ("first", "second"):
            (directory / name).mkdir()
            server = servers.redis_server(directory / name, *AT_ONCE, program=program)
            self.running.append(stack.enter_context(server))
        self.first, self.second = (redis.Redis(port=one.port) for one in self.running)
        self.address = Proxy(self.running[0].port)
        stack.callback(self.address.close)
        stack.callback(self.first.close)
        stack.callback(self.second.close)
        self.store = RedisStore(spec, f"redis://127.0.0.1:{self.address.port}/0", timeout_s=1.0)
        stack.callback(self.store.close)

    def move(self) -> None:
        """Point the address at the second server; open connections stay where they are."""
        self.address.target = self.running[1].port


PROGRAMS = {"redis": "redis-server"} | {n: str(p) for n, p in other_redis_servers().items()}


@pytest.fixture(params=PROGRAMS)
def pair(request: pytest.FixtureRequest, tmp_path: Path, make_spec: Make) -> Iterator[Pair]:
    """Two servers of each kind that is on this machine."""
    with contextlib.ExitStack() as stack:
        try:
            made = Pair(tmp_path, stack, make_spec(), PROGRAMS[request.param])
        except ServerMissing as why:
            missing(why)
        made.store.check()
        made.store.identify()
        yield made


def first_save(spec: StateSpec, say: Say) -> Save:
    return Save(StateKey(uuid.uuid4().hex, "topic", 0), 1, -1, say(spec, None, 0), OUTPUT, 0)


def told_until_changed(action: Callable[[], object], within_s: float = RECOVERS_S) -> list[str]:
    """Try until `StoreChanged`; what was said before it."""
    said: list[str] = []
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            action()
        except StoreUnavailable as error:
            said.append(str(error))
        except StoreChanged:
            return said
        time.sleep(0.1)
    raise AssertionError(f"not recovered in {within_s:.0f} s: {said[-1:]}")


def test_a_primary_that_became_a_replica_is_left_for_the_one_the_address_names(
    pair: Pair, make_spec: Make, say: Say
) -> None:
    """A batch was held for ever: READONLY came over a connection that nothing ever closed."""
    spec = make_spec()
    (saved,) = pair.store.save_many([first_save(spec, say)])
    assert saved.result is SaveResult.SAVED
    pair.move()
    pair.first.replicaof("127.0.0.1", pair.running[1].port)
    said = told_until_changed(lambda: pair.store.save_many([first_save(spec, say)]))
    assert said, "the server that refused must be named once"
    assert "replica" in said[0]
    pair.store.check()
    pair.store.identify()
    (saved,) = pair.store.save_many([first_save(spec, say)])
    assert saved.result is SaveResult.SAVED
    assert pair.second.dbsize() > 0


def test_an_idle_store_sees_that_its_server_became_a_replica(pair: Pair) -> None:
    """Nothing is written: the check once a second finds out."""
    pair.move()
    pair.first.replicaof("127.0.0.1", pair.running[1].port)
    with pytest.raises(StoreUnavailable, match="is a replica"):
        pair.store.verify()
    with pytest.raises(StoreChanged):
        pair.store.verify()
    pair.store.identify()
    pair.store.verify()


def test_a_replica_that_may_be_written_to_is_refused_all_the_same(pair: Pair) -> None:
    """Its writes are accepted and lost with the next synchronisation."""
    pair.first.config_set("replica-read-only", "no")
    pair.first.replicaof("127.0.0.1", pair.running[1].port)
    with pytest.raises(StoreUnavailable, match=rf"READONLY role slave of.*{pair.running[1].port}"):
        pair.store.verify()
    with pytest.raises(StoreUnavailable, match="the address must name the primary"):
        pair.store.check()


def test_a_replica_without_its_primary_is_left(pair: Pair, make_spec: Make, say: Say) -> None:
    """MASTERDOWN is what it answers to a read."""
    spec, key = make_spec(), StateKey("c", "topic", 0)
    pair.first.config_set("replica-serve-stale-data", "no")
    pair.first.replicaof("127.0.0.1", free_ports(1)[0])
    with pytest.raises(StoreUnavailable, match=r"MASTERDOWN.*replica-serve-stale-data"):
        pair.store.load_many([key])
    pair.move()
    said = told_until_changed(lambda: pair.store.load_many([key]))
    assert not said, "the address was resolved again at once"
    pair.store.identify()
    assert pair.store.save_many([first_save(spec, say)])[0].result is SaveResult.SAVED


def test_a_server_that_still_loads_its_data_is_waited_for_or_left(
    pair: Pair, make_spec: Make, say: Say
) -> None:
    spec = make_spec()
    pair.first.config_set("key-load-delay", 500)  # microseconds a key
    pair.first.config_set("loading-process-events-interval-bytes", 1024)
    pipeline = pair.first.pipeline()
    for number in range(5_000):
        pipeline.set(f"x{number}", "x")
    pipeline.execute()
    loading = threading.Thread(target=reload, args=(pair.running[0].port,))
    loading.start()
    until = time.monotonic() + RECOVERS_S
    said = ""
    while "LOADING" not in said and time.monotonic() < until:
        with contextlib.suppress(StoreChanged):
            try:
                pair.store.save_many([first_save(spec, say)])
            except StoreUnavailable as error:
                said = str(error)
    assert "is reading its data from disk: wait (LOADING" in said
    pair.move()
    told_until_changed(pair.store.verify)
    pair.store.identify()
    assert pair.store.save_many([first_save(spec, say)])[0].result is SaveResult.SAVED
    loading.join(60)


def reload(port: int) -> None:
    """Have a server save its data and read it again; it answers LOADING meanwhile."""
    with contextlib.suppress(redis.RedisError):
        client = redis.Redis(port=port, socket_timeout=60)
        client.execute_command("DEBUG", "RELOAD")  # type: ignore[no-untyped-call]


def test_a_primary_without_its_replicas_is_left(pair: Pair, make_spec: Make, say: Say) -> None:
    spec = make_spec()
    pair.first.config_set("min-replicas-to-write", 1)
    with pytest.raises(StoreUnavailable, match=r"min-replicas-to-write.*NOREPLICAS"):
        pair.store.save_many([first_save(spec, say)])
    pair.move()
    assert not told_until_changed(lambda: pair.store.save_many([first_save(spec, say)]))


def test_an_address_that_comes_to_name_a_node_of_a_cluster_is_tried_again(
    pair: Pair, make_spec: Make, say: Say, cluster_url: str
) -> None:
    """At the start it is a wrong setting; under a running worker the address may move on."""
    spec, second = make_spec(), pair.running[1].port
    pair.address.target = int(cluster_url.rpartition(":")[2].partition("/")[0])
    pair.address.reset()
    moved = pytest.raises(StoreUnavailable, match=r"EMOTRACK_REDIS_CLUSTER=true.*MOVED")
    with moved, contextlib.suppress(StoreChanged):
        for _ in range(20):
            pair.store.save_many([first_save(spec, say)])
    pair.address.target = second
    pair.address.reset()
    told_until_changed(lambda: pair.store.save_many([first_save(spec, say)]))


def test_a_store_is_not_checked_into_a_replica(tmp_path: Path, make_spec: Make) -> None:
    with servers.redis_server(tmp_path) as running:
        client = redis.Redis(port=running.port)
        client.replicaof("127.0.0.1", free_ports(1)[0])
        store = RedisStore(make_spec(), running.url)
        with pytest.raises(StoreUnavailable, match="is a replica: the address must name the prim"):
            store.check()
        client.replicaof("NO", "ONE")
        store.check()
        store.close()
        client.close()


def test_a_server_is_named_with_its_own_version(pair: Pair) -> None:
    """A Valkey states the version of the last Redis before it, which is not what runs there."""
    (server,) = pair.store.servers()
    facts = pair.first.info("server")
    own = facts.get("valkey_version", facts["redis_version"])
    assert str(server).startswith(f"{'Valkey' if 'valkey_version' in facts else 'Redis'} {own}")
    assert (server.redis_version in str(server)) and server.primary is None


def test_a_slot_that_is_being_moved_is_waited_for(
    make_spec: Make, say: Say, cluster_url: str
) -> None:
    """ASK and TRYAGAIN: the four keys of a state are on neither node alone until the slot is."""
    spec = make_spec()
    save = first_save(spec, say)
    slot = str(key_slot(state_keys(save.key)[1].encode()))
    cluster: Any = redis.RedisCluster.from_url(cluster_url)

    def move(node: Any, state: str, other: Any) -> None:
        cluster.execute_command(
            "CLUSTER SETSLOT", slot, state, cluster.cluster_myid(other), target_nodes=node
        )

    source = cluster.nodes_manager.get_node_from_slot(int(slot))
    target = next(node for node in cluster.get_primaries() if node.name != source.name)
    move(target, "IMPORTING", source)
    move(source, "MIGRATING", target)
    store = RedisStore(spec, cluster_url, cluster=True)
    known = store._redis
    with pytest.raises(StoreUnavailable, match="serves some slots not now"):
        store.save_many([save])
    assert store._redis is known, "it knows more nodes than the address, whose node may be gone"
    for node in (target, source, *cluster.get_primaries()):
        move(node, "NODE", target)
    until = time.monotonic() + RECOVERS_S
    while time.monotonic() < until:
        with contextlib.suppress(StoreUnavailable):
            assert store.save_many([save])[0].result is SaveResult.SAVED
            break
        time.sleep(0.1)
    else:
        raise AssertionError("not served after the slot has moved")
    store.close()
    cluster.close()


def test_a_cluster_whose_nodes_all_have_new_addresses_is_found_by_the_named_one(
    make_spec: Make, say: Say, tmp_path: Path
) -> None:
    """redis/redis-py#3604: the client knew only addresses of nodes that are gone."""
    spec = make_spec()
    with contextlib.ExitStack() as stack:
        try:
            before = stack.enter_context(redis_cluster(tmp_path / "before"))
            after = stack.enter_context(redis_cluster(tmp_path / "after"))
        except ServerMissing as why:
            missing(why)
        address = Proxy(before[0].port)
        stack.callback(address.close)
        store = RedisStore(spec, f"redis://127.0.0.1:{address.port}", cluster=True, timeout_s=1.0)
        stack.callback(store.close)
        store.check()
        store.identify()
        assert store.save_many([first_save(spec, say)])[0].result is SaveResult.SAVED
        address.target = after[0].port
        address.reset()
        for node in before:
            node.server.stop()
        told_until_changed(lambda: store.save_many([first_save(spec, say)]))
        store.check()
        store.identify()
        assert store.save_many([first_save(spec, say)])[0].result is SaveResult.SAVED
