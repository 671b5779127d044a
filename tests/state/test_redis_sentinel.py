"""A Redis whose address real sentinels know: found, followed, and what is said where it is not."""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from state.redis_link import RedisAccess
from state.redis_reader import StateReader
from state.redis_store import RedisStore
from state.store import (
    Save,
    SaveResult,
    StoreChanged,
    StoredOutput,
    StoreRefused,
    StoreUnavailable,
)
from state.window import Change, StateKey, StateSpec
from stream.local import servers
from stream.local.servers import RunningRedis, ServerMissing, free_ports
from tests.conftest import ROOT, missing
from tests.integration import secured
from tests.servers import redis_sentinels

pytestmark = pytest.mark.integration

Make = Callable[..., StateSpec]
Say = Callable[..., Change]
OUTPUT = StoredOutput("predicted", b"{}")
FOLLOWS_S = 15.0
SERVER, SENTINEL = "s3rver-s3cret", "s3ntinel-s3cret"


class Watched:
    """A primary, its replica and three sentinels; all of them want passwords."""

    def __init__(self, directory: Path, stack: contextlib.ExitStack) -> None:
        self.running: list[RunningRedis] = []
        for name in ("one", "two"):
            (directory / name).mkdir()
            options = ("--requirepass", SERVER, "--masterauth", SERVER, "--shutdown-timeout", "0")
            server = servers.redis_server(directory / name, *options)
            self.running.append(stack.enter_context(server))
        self.clients = [redis.Redis(port=one.port, password=SERVER) for one in self.running]
        self.clients[1].replicaof("127.0.0.1", self.running[0].port)
        self.ports = stack.enter_context(
            redis_sentinels(
                directory,
                "tracker",
                self.running[0].port,
                f"sentinel auth-pass tracker {SERVER}",
                f"requirepass {SENTINEL}",
                f"sentinel sentinel-pass {SENTINEL}",
            )
        )
        self.sentinels = [redis.Redis(port=port, password=SENTINEL) for port in self.ports]
        for client in (*self.clients, *self.sentinels):
            stack.callback(client.close)

    @property
    def url(self) -> str:
        return self.url_of(self.ports)

    def url_of(self, ports: list[int], service: str = "tracker") -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
        return f"redis+sentinel://:{SERVER}@{hosts}/{service}/0"

    def wait_for_replica(self) -> None:
        """Wait until every sentinel knows the replica and the others: then they may fail over."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            told: list[Any] = [one.sentinel_masters() for one in self.sentinels]
            states = [one["tracker"] for one in told]
            known = all(s["num-slaves"] == 1 and s["num-other-sentinels"] == 2 for s in states)
            linked = self.clients[1].info("replication").get("master_link_status") == "up"
            if known and linked:
                return
            time.sleep(0.1)
        raise AssertionError("the sentinels did not find each other")

    def wait_until_replica_of(self, replica: int, primary: int) -> None:
        """Wait until one server copies the other: it may be promoted then."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            state = self.clients[replica].info("replication")
            port = self.running[primary].port
            if state.get("master_port") == port and state.get("master_link_status") == "up":
                return
            time.sleep(0.1)
        raise AssertionError("the old primary was not made a replica")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """The last test ends one of its servers."""
    with contextlib.ExitStack() as stack:
        try:
            made = Watched(tmp_path_factory.mktemp("sentinels"), stack)
        except ServerMissing as why:
            missing(why)
        made.wait_for_replica()
        yield made


ACCESS = RedisAccess(sentinel_password=SENTINEL)


def first_save(spec: StateSpec, say: Say) -> Save:
    return Save(StateKey(uuid.uuid4().hex, "topic", 0), 1, -1, say(spec, None, 0), OUTPUT, 0)


def follow(store: RedisStore) -> float:
    """Seconds until the store has met another server than before."""
    began = time.monotonic()
    while time.monotonic() < began + FOLLOWS_S:
        try:
            store.verify()
        except StoreUnavailable:
            pass
        except StoreChanged:
            return time.monotonic() - began
        time.sleep(0.2)
    raise AssertionError(f"not followed in {FOLLOWS_S:.0f} s")


def refused(url: str, spec: StateSpec, access: RedisAccess = ACCESS) -> Exception:
    """Return the error that the check of a store at this address raises."""
    store = RedisStore(spec, url, access=access, timeout_s=1.0)
    with pytest.raises((StoreRefused, StoreUnavailable)) as met:
        store.check()
    store.close()
    assert SERVER not in str(met.value)
    assert SENTINEL not in str(met.value)
    return met.value


def test_what_is_wrong_with_sentinels_is_one_sentence_with_its_cure(
    watched: Watched, make_spec: Make
) -> None:
    spec = make_spec()
    for access in (RedisAccess(), RedisAccess(sentinel_password="wrong")):
        met = refused(watched.url, spec, access)
        assert isinstance(met, StoreRefused)
        assert "correct EMOTRACK_REDIS_SENTINEL_USERNAME and EMOTRACK_REDIS_SENTINEL_PASS" in str(
            met
        )
    met = refused(watched.url_of(watched.ports, "nobody"), spec)
    assert isinstance(met, StoreUnavailable)
    assert "nobody, by the sentinels" in str(met)
    assert "correct SERVICE in the address" in str(met)
    met = refused(watched.url_of(free_ports(2)), spec)
    assert isinstance(met, StoreUnavailable)
    assert "start them, or correct their addresses" in str(met)
    met = refused(watched.url.replace(SERVER, "wrong"), spec)
    assert isinstance(met, StoreRefused)
    assert "correct user and password" in str(met)
    met = refused(
        watched.url_of([watched.running[0].port]), spec, RedisAccess(sentinel_password=SERVER)
    )
    assert isinstance(met, StoreRefused)
    assert "is no sentinel: name the sentinels' own ports" in str(met)


def test_an_address_with_one_sentinel_away_is_found_by_the_others(
    watched: Watched, make_spec: Make
) -> None:
    store = RedisStore(
        make_spec(), watched.url_of([*free_ports(1), *watched.ports[:1]]), access=ACCESS
    )
    store.check()
    store.close()


def test_a_user_of_the_sentinels_needs_one_right(watched: Watched, make_spec: Make) -> None:
    for one in watched.sentinels:
        one.acl_setuser("reader", enabled=True, passwords="+hush", reset=True)
    access = RedisAccess(sentinel_username="reader", sentinel_password="hush")
    assert "sentinel|masters" in str(refused(watched.url, make_spec(), access))
    page = (ROOT / "docs/security.md").read_text("utf-8")
    (rights,) = re.findall(r"^ACL SETUSER lookup on >PASSWORD (.*)$", page, re.MULTILINE)
    for one in watched.sentinels:
        rules: Any = one
        rules.execute_command(f"ACL SETUSER reader {rights}")
    store = RedisStore(make_spec(), watched.url, access=access)
    store.check()
    store.close()


def test_sentinels_and_servers_may_speak_tls(tmp_path: Path, make_spec: Make) -> None:
    certificates = secured.make_certificates(tmp_path)
    with secured.secured_redis(tmp_path, certificates) as running:
        lines = (
            "port 0",
            "tls-port PORT",
            "tls-replication yes",
            "tls-auth-clients no",
            f"tls-cert-file {certificates.server_cert}",
            f"tls-key-file {certificates.server_key}",
            f"tls-ca-cert-file {certificates.ca}",
        )
        with redis_sentinels(tmp_path, "tracker", running.port, *lines, count=1) as (port,):
            url = f"rediss+sentinel://127.0.0.1:{port}/tracker"
            store = RedisStore(make_spec(), url, access=RedisAccess(ca_file=certificates.ca))
            store.check()
            store.close()
            assert "CERTIFICATE_VERIFY_FAILED" in str(refused(url, make_spec(), RedisAccess()))
            plain = url.replace("rediss", "redis")
            assert "use rediss+sentinel://" in str(refused(plain, make_spec(), RedisAccess()))


def test_a_failover_by_sentinels_is_followed(watched: Watched, make_spec: Make, say: Say) -> None:
    """Once the primary is killed, once it is demoted under our open connection."""
    spec = make_spec()
    store = RedisStore(spec, watched.url, access=ACCESS, timeout_s=1.0)
    store.check()
    store.identify()
    save = first_save(spec, say)
    assert store.save_many([save])[0].result is SaveResult.SAVED
    watched.sentinels[0].sentinel_failover("tracker")
    follow(store)
    store.check()
    store.identify()
    assert watched.clients[1].info("replication")["role"] == "master"
    assert store.save_many([first_save(spec, say)])[0].result is SaveResult.SAVED
    watched.wait_until_replica_of(0, 1)
    watched.running[1].server.stop(hard=True)
    follow(store)
    store.check()
    store.identify()
    assert watched.clients[0].info("replication")["role"] == "master"
    assert store.load_many([save.key])[0].offset == 0
    with contextlib.closing(StateReader(watched.url, spec, access=ACCESS)) as reader:
        assert reader.read([save.key])[0] is not None, "what verifies finds it by the same address"
    store.close()
