"""Scenarios of failovers as the field has them: the old server lives, and says it is not the one.

The address that the workers know is moved and their open connections are left: nothing but what
the old server answers tells them.
"""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Final

import redis

from stream.local.servers import RunningRedis, free_ports, redis_server
from tests.chaos.plant import Plant
from tests.chaos.proxy import Proxy
from tests.chaos.scenarios import OUTPUT_S, PATIENCE_S, Facts, Stage, wait_more
from tests.integration.workers import wait_for
from tests.servers import redis_sentinels

KEY_US: Final = 1_000  # to load one key
ROUNDS: Final = 6
OPTIONS: Final = ("--enable-debug-command", "local", "--shutdown-timeout", "0")


def demoted(stage: Stage) -> Facts:
    """R31: a primary becomes a replica under open connections: READONLY, MASTERDOWN, LOADING."""
    first, second = _two(stage)
    one, two = (redis.Redis(port=server.port) for server in (first, second))
    _copy(two, first.port)
    address = stage.proxy(first.port)
    # Nothing cached: each batch reads first, which a replica answers until its primary is away.
    url = f"redis://127.0.0.1:{address.port}/0"
    with stage.plant(redis_url=url, cache_conversations=1) as (plant, _):
        for _ in range(2):
            plant.start()
        wait_more(plant, stage.times(10, 60))
        two.replicaof("NO", "ONE")
        address.target = second.port
        _copy(one, second.port, wait=False)
        readonly = _output_after(stage, plant, "READONLY")
        masterdown = _masterdown(stage, plant, address, [(one, first.port), (two, second.port)])

        serving = one if address.target == first.port else two
        assert address.target is not None
        keys = stage.times(800, 3_000)
        reload = threading.Thread(target=_reload, args=(serving, address.target, keys))
        reload.start()
        loading = _output_after(stage, plant, "LOADING")
        reload.join(PATIENCE_S)
        refused = plant.metric("state_operations_total", operation="any", result="unavailable")
        truncated = plant.metric("context_truncated_total")
    for client in (one, two):
        client.close()
    assert refused > 0, "the metric must have moved"
    assert truncated == 0, f"{truncated} predictions without their context"
    return {
        "calls refused": int(refused),
        "output s after READONLY": readonly,
        "MASTERDOWN": masterdown,
        "LOADING": loading,
    }


def sentinels_fail_over(stage: Stage) -> Facts:
    """R32: real sentinels demote the primary, then the next one is killed; workers follow."""
    first, second = _two(stage)
    one, two = (redis.Redis(port=server.port) for server in (first, second))
    _copy(two, first.port)
    watch = redis_sentinels(stage.directory, "tracker", first.port)
    ports = stage.closing.enter_context(watch)
    sentinel = redis.Redis(port=ports[0])
    wait_for(lambda: _ready(sentinel), "sentinels that know each other", PATIENCE_S)
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    with stage.plant(redis_url=f"redis+sentinel://{hosts}/tracker/0") as (plant, _):
        for _ in range(2):
            plant.start()
        wait_more(plant, stage.times(10, 60))
        sentinel.sentinel_failover("tracker")
        wait_for(lambda: two.info("replication")["role"] == "master", "promotion", PATIENCE_S)
        demotion = _output_after(stage, plant)
        wait_for(partial(_linked, one), "the old primary as a replica", PATIENCE_S)
        wait_for(lambda: _ready(sentinel), "sentinels that know it", PATIENCE_S)
        second.server.stop(hard=True)
        death = _output_after(stage, plant)
        changed = plant.metric("state_operations_total", operation="any", result="unavailable")
        truncated = plant.metric("context_truncated_total")
    assert one.info("replication")["role"] == "master"
    for client in (one, two, sentinel):
        client.close()
    assert changed > 0, "the metric must have moved"
    assert truncated == 0, f"{truncated} predictions without their context"
    return {"output s after demotion": demotion, "after a kill": death}


def _masterdown(
    stage: Stage, plant: Plant, address: Proxy, pair: list[tuple[redis.Redis, int]]
) -> float:
    """Move from the second of a pair to the first, cut the second off, until one read of it fails.

    A worker whose next call is a write, or the look once a second, meets READONLY: then once more,
    with the roles exchanged. Returns the slowest output.
    """
    slowest = 0.0
    for _ in range(ROUNDS):
        (new, new_port), (old, _) = pair
        wait_for(partial(_linked, new), "the next primary as a replica", PATIENCE_S)
        old.config_set("replica-serve-stale-data", "no")
        new.replicaof("NO", "ONE")
        address.target = new_port
        _copy(old, *free_ports(1), wait=False)
        slowest = max(slowest, _output_after(stage, plant))
        if _told(plant, ("MASTERDOWN",)):
            return slowest
        _copy(old, new_port, wait=False)
        pair.reverse()
    raise AssertionError(f"no read met MASTERDOWN in {ROUNDS} rounds")


def _two(stage: Stage) -> tuple[RunningRedis, RunningRedis]:
    made = []
    for name in ("first", "second"):
        (stage.directory / name).mkdir()
        made.append(stage.closing.enter_context(redis_server(stage.directory / name, *OPTIONS)))
    return made[0], made[1]


def _copy(client: redis.Redis, primary: int, *, wait: bool = True) -> None:
    client.replicaof("127.0.0.1", primary)
    if wait:
        wait_for(partial(_linked, client), "a replica", PATIENCE_S)


def _linked(client: redis.Redis) -> bool:
    return client.info("replication").get("master_link_status") == "up"


def _ready(sentinel: redis.Redis) -> bool:
    """Return whether a sentinel knows the others, and a replica that it may promote."""
    replicas = sentinel.sentinel_slaves("tracker")
    state = sentinel.sentinel_masters()
    assert isinstance(state, dict)
    others = int(state["tracker"]["num-other-sentinels"])
    return others == 2 and any(not r["is_sdown"] and not r["is_disconnected"] for r in replicas)


def _reload(client: redis.Redis, port: int, keys: int) -> None:
    """Have a server read its data again for some seconds; it answers LOADING meanwhile."""
    client.config_set("loading-process-events-interval-bytes", 1024)
    client.mset({f"filler:{number}": "x" for number in range(keys)})
    client.config_set("key-load-delay", KEY_US)
    patient = redis.Redis(port=port, socket_timeout=60)
    patient.execute_command("DEBUG", "RELOAD")  # type: ignore[no-untyped-call]
    patient.close()
    client.config_set("key-load-delay", 0)


def _output_after(stage: Stage, plant: Plant, *replies: str) -> float:
    """Seconds until every partition has new outputs, and a worker was answered one of `replies`."""
    began = time.monotonic()
    if replies:
        wait_for(lambda: _told(plant, replies), f"{replies} in a log", PATIENCE_S)
    wait_more(plant)
    return stage.within(time.monotonic() - began, OUTPUT_S)


def _told(plant: Plant, replies: tuple[str, ...]) -> bool:
    logs = [worker.log.read_text(errors="replace") for worker in plant.workers]
    return any(f"({reply}" in log for log in logs for reply in replies)
