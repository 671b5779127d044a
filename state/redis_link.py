"""Connections to a Redis, by sentinels or a Redis Cluster; commands to every primary; identity."""

from __future__ import annotations

import contextlib
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import parse_url
from redis.crc import key_slot
from redis.exceptions import RedisClusterException
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from state.redis_address import RedisAddress, read_address

Client = redis.Redis | RedisCluster
RESENDS: Final = 2  # a call without an answer is sent again: one that was applied answers REPLAY
SENTINELS_PART: Final = 0.25  # of the timeout, for each sentinel: one that is away delays the next
SHORTEST_LIFE_S: Final = 10.0  # of the epoch key: workers renew it once a second


@dataclass(frozen=True, slots=True)
class RedisAccess:
    """Credentials that the address does not contain; PEM files for `rediss://`."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None  # None: the system's authorities
    cert_file: Path | None = None
    key_file: Path | None = None
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)

    def arguments(self) -> dict[str, Any]:
        """Return redis-py's arguments for the fields that are set."""
        return self.tls() | _given(username=self.username, password=self.password)

    def of_sentinels(self) -> dict[str, Any]:
        """Return redis-py's arguments of the connections to sentinels."""
        return _given(username=self.sentinel_username, password=self.sentinel_password)

    def tls(self) -> dict[str, Any]:
        """Return redis-py's arguments that name PEM files."""
        return _given(
            ssl_ca_certs=self.ca_file, ssl_certfile=self.cert_file, ssl_keyfile=self.key_file
        )


def _given(**arguments: str | Path | None) -> dict[str, Any]:
    return {name: str(value) for name, value in arguments.items() if value is not None}


ANYONE: Final = RedisAccess()


def open_client(
    url: str,
    *,
    cluster: bool,
    timeout_s: float,
    access: RedisAccess,
    connected: Callable[[], None],
) -> Client:
    """Return a client for an address; `connected` is called at each new connection.

    Asks a cluster for its nodes at once: raises `redis.RedisError` or `RedisClusterException`.
    Raises ValueError for a malformed address.
    """
    address = read_address(url)
    common: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(ExponentialBackoff(cap=0.1, base=0.01), RESENDS),
        "protocol": 2,
        **access.arguments(),
    }
    if cluster:
        if address.service is not None:
            raise ValueError("names sentinels, which know no cluster: name one of its nodes")
        return RedisCluster.from_url(url, redis_connect_func=lambda _: connected(), **common)

    def greet(connection: Any) -> None:
        connection.on_connect()
        connected()

    common["redis_connect_func"] = greet
    if address.service is None:
        return redis.Redis.from_url(url, **common)
    return _named_by_sentinels(address, address.service, common, access)


class _OneSentinel(redis.Redis):
    """A client of one sentinel that keeps why it failed: redis-py's `Sentinel` drops the reason."""

    failure = ""

    def sentinel_masters(self) -> Any:
        self.failure = ""
        try:
            return super().sentinel_masters()
        except (redis.ConnectionError, redis.TimeoutError) as error:
            self.failure = f"{type(error).__name__}: {error}"
            raise


class _Sentinels(Sentinel):
    """redis-py's client of sentinels; its error says why each of them failed."""

    def __init__(self, hosts: Sequence[tuple[str, int]], arguments: Mapping[str, Any]) -> None:
        super().__init__((), sentinel_kwargs=arguments)  # type: ignore[no-untyped-call]
        self._each = [_OneSentinel(host, port, **arguments) for host, port in hosts]
        self.sentinels = list[redis.Redis](self._each)

    def discover_master(self, service_name: str) -> tuple[str, int]:
        try:
            found: tuple[str, int] = super().discover_master(  # type: ignore[no-untyped-call]
                service_name
            )
        except MasterNotFoundError:
            reasons = "; ".join(one.failure for one in self._each if one.failure)
            raise MasterNotFoundError(reasons) from None
        return found


def _named_by_sentinels(
    address: RedisAddress, service: str, common: dict[str, Any], access: RedisAccess
) -> redis.Redis:
    """Return a client of the primary that sentinels name; each new connection asks them again."""
    tls = {"ssl": True, **access.tls()} if address.tls else {}
    patience_s = common["socket_timeout"] * SENTINELS_PART
    sentinels = _Sentinels(
        address.hosts,
        {
            "socket_timeout": patience_s,
            "socket_connect_timeout": patience_s,
            "retry": Retry(NoBackoff(), 0),
            "protocol": 2,
            **tls,
            **access.of_sentinels(),
        },
    )
    credentials = _given(username=address.username, password=address.password)
    pool = SentinelConnectionPool(  # type: ignore[no-untyped-call]
        service, sentinels, db=address.database, **{**common, **tls, **credentials}
    )
    return redis.Redis.from_pool(pool)


def last_words(url: str, timeout_s: float) -> redis.ResponseError | None:
    """Return the error that a server sends before it closes a connection; None if it sends none.

    In protected mode it does so before it is asked; redis-py meets the closed connection first.
    """
    address = read_address(url)
    if address.tls or address.service is not None or not address.hosts:
        return None
    with contextlib.suppress(OSError):
        with socket.create_connection(address.hosts[0], timeout_s) as connection:
            connection.settimeout(timeout_s)
            words = connection.recv(4096).decode(errors="replace")
        if words.startswith("-"):
            return redis.ResponseError(words[1:].strip())
    return None


def reconnected(client: Client, url: str) -> Client | None:
    """Close all connections; return the client if it is to be used further, None for a new one.

    A cluster's knows more nodes than the address names, one of which may be away: it keeps them,
    and asks which node has which slots again. It asks the address too, which redis-py forgets:
    all nodes may have come back at other addresses.
    """
    with contextlib.suppress(OSError, redis.RedisError, RedisClusterException):
        if isinstance(client, RedisCluster):
            client.disconnect_connection_pools()  # type: ignore[no-untyped-call]
            named = parse_url(url)  # type: ignore[no-untyped-call]
            host, port = named.get("host", "localhost"), named.get("port", 6379)
            node = ClusterNode(host, port)  # type: ignore[no-untyped-call]
            client.nodes_manager.startup_nodes.setdefault(node.name, node)
            client.nodes_manager.initialize()
        else:
            close_client(client)
    return client if isinstance(client, RedisCluster) else None


def close_client(client: Client) -> None:
    """Close its connections, those to sentinels too."""
    client.close()
    pool = getattr(client, "connection_pool", None)
    if isinstance(pool, SentinelConnectionPool):
        pool.sentinel_manager.close()


def primaries(client: RedisCluster) -> list[ClusterNode]:
    """Return the primaries in an order that a restart does not change."""
    nodes = client.nodes_manager.get_nodes_by_server_type("primary")
    return sorted(nodes, key=lambda node: str(node.name))


def nodes_of(client: Client) -> list[redis.Redis]:
    """Return a client of each primary."""
    if not isinstance(client, RedisCluster):
        return [client]
    return [client.get_redis_connection(node) for node in primaries(client)]


def info_of(client: Client, *sections: str) -> list[Mapping[str, Any]]:
    """Return the answer to INFO of every primary."""
    return [node.info(*sections) for node in nodes_of(client)]


def require_library(client: Client, library: str, source: str) -> None:
    """Load a function library on every primary that does not have the same source."""
    for node in nodes_of(client):
        # the source is a leaf of nested lists or dicts, by version of redis-py
        if repr(source.encode()) not in repr(node.function_list(library, withcode=True)):
            node.function_load(source, replace=True)


@dataclass(frozen=True, slots=True)
class Server:
    """A server as its INFO describes it."""

    name: str  # Redis, Valkey or another that speaks its protocol
    version: str  # its own
    redis_version: str  # of the Redis whose commands it has
    policy: str  # maxmemory-policy
    primary: str | None  # of a replica, host:port
    in_cluster: bool

    def __str__(self) -> str:
        if self.version == self.redis_version:
            return f"{self.name} {self.version}"
        return f"{self.name} {self.version} (commands of Redis {self.redis_version})"


def servers_of(client: Client) -> list[Server]:
    """Return the server behind a client, or a cluster's primaries. Raises `redis.RedisError`."""
    return [_server(info) for info in info_of(client)]


def _server(info: Mapping[str, Any]) -> Server:
    name = str(info.get("server_name", "redis")).lower()
    redis_version = str(info.get("redis_version", "0"))
    return Server(
        name.capitalize(),
        str(info.get(f"{name}_version", redis_version)),
        redis_version,
        str(info.get("maxmemory_policy", "noeviction")),
        _primary_of(info),
        bool(info.get("cluster_enabled", 0)),
    )


def _primary_of(info: Mapping[str, Any]) -> str | None:
    """Return the address that a replica copies, None for a primary."""
    if info.get("role", "master") == "master":
        return None
    return f"{info.get('master_host', '?')}:{info.get('master_port', '?')}"


class NotPrimary(redis.ReadOnlyError):
    """The server is a replica; one that may be written to would lose what is written."""


def require_primary(primary: str | None) -> None:
    """Raise `NotPrimary` for a server that copies another."""
    if primary is not None:
        raise NotPrimary(f"role slave of {primary}", status_code="READONLY")


Epoch = tuple[bytes | None, int]
"""The value of our key in a primary, and how many keys it has evicted."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of all primaries together, which changes when acknowledged writes may be lost.

    That is when a server restarts without its data, is emptied, evicts, when its clock jumps so
    far ahead that live states expire, or when a replica without the write is promoted: its run
    id, replication id, count of evicted keys, or the random value of our key `et:epoch:{n}`
    changes (n: the smallest number in the primary's slots).
    """

    digest: str  # 16 hex digits
    epochs: tuple[Epoch, ...]  # by primary


def read_identity(client: Client, idle_s: float) -> Identity:
    """Read the identity; set or renew our key in each primary.

    A state of an open session lives for at least `idle_s` more. The key lives no longer, so that
    it expires wherever one of them may have: the clock jumped, or no worker ran.
    Raises `redis.RedisError`, `NotPrimary` where a server is a replica.
    """
    life_ms = int(1000 * max(idle_s, SHORTEST_LIFE_S))
    keys = _epoch_keys(client)
    for key in keys:
        _renew(client, key, life_ms)
    epochs = read_epochs(client)
    digest = blake2b(digest_size=8)
    infos = info_of(client, "server", "replication")
    for info, epoch in zip(infos, epochs, strict=True):
        require_primary(_primary_of(info))
        facts = (info["run_id"], info["master_replid"], epoch)
        digest.update(repr(facts).encode())
    return Identity(digest.hexdigest(), epochs)


def _renew(client: Client, key: str, life_ms: int) -> None:
    """Make our key where it is missing; renew its life. One round trip."""
    pipeline = client.pipeline(transaction=False)
    pipeline.set(key, secrets.token_hex(16), nx=True, px=life_ms)  # a full server refuses this
    pipeline.pexpire(key, life_ms)
    pipeline.execute()


def read_epochs(client: Client) -> tuple[Epoch, ...]:
    """Return what changes where a key may be missing, one round trip a primary.

    Raises `redis.RedisError`.
    """
    found = []
    for node, key in zip(nodes_of(client), _epoch_keys(client), strict=True):
        pipeline = node.pipeline(transaction=False)
        pipeline.get(key)
        pipeline.info("stats")
        epoch, stats = pipeline.execute()
        found.append((epoch, int(stats["evicted_keys"])))
    return tuple(found)


def _epoch_keys(client: Client) -> list[str]:
    """Return the key of ours in each primary, which vanishes with the data or before it."""
    if not isinstance(client, RedisCluster):
        return ["et:epoch:{0}"]
    keys: dict[str, str] = {}
    nodes = primaries(client)
    number = 0
    while len(keys) < len(nodes):
        key = f"et:epoch:{{{number}}}"
        node = client.nodes_manager.get_node_from_slot(key_slot(key.encode()))
        keys.setdefault(str(node.name), key)
        number += 1
    return [keys[str(node.name)] for node in nodes]
