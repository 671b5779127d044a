"""A server that is no longer the one to write to: the connection to it is given up."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from state.redis_store import RedisStore
from state.store import (
    Save,
    SaveResult,
    StoreChanged,
    StoredOutput,
    StoreUnavailable,
)
from state.window import Change, StateKey, StateSpec
from stream.local import servers
from stream.local.servers import RunningRedis, free_ports
from tests.chaos.proxy import Proxy

pytestmark = pytest.mark.integration

Make = Callable[..., StateSpec]
Say = Callable[..., Change]
OUTPUT = StoredOutput("predicted", b"{}")
RECOVERS_S = 15.0


class Pair:
    """Two servers, the address that names one of them, and a store at that address."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack, spec: StateSpec) -> None:
        self.running: list[RunningRedis] = []
        for name in ("first", "second"):
            (directory / name).mkdir()
            self.running.append(stack.enter_context(servers.redis_server(directory / name)))
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


@pytest.fixture
def pair(tmp_path: Path, make_spec: Make) -> Iterator[Pair]:
    with contextlib.ExitStack() as stack:
        made = Pair(tmp_path, stack, make_spec())
        made.store.check()
        made.store.identify()
        yield made


def first_save(spec: StateSpec, say: Say) -> Save:
    return Save(StateKey(uuid.uuid4().hex, "topic", 0), 1, -1, say(spec, None, 0), OUTPUT, 0)


def told_until_changed(action: Callable[[], object]) -> list[str]:
    """Try until `StoreChanged`; what was said before it."""
    said: list[str] = []
    until = time.monotonic() + RECOVERS_S
    while time.monotonic() < until:
        try:
            action()
        except StoreUnavailable as error:
            said.append(str(error))
        except StoreChanged:
            return said
        time.sleep(0.1)
    raise AssertionError(f"not recovered in {RECOVERS_S:.0f} s: {said[-1:]}")


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
