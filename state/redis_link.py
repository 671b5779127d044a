"""Connections to a Redis or a Redis Cluster, commands to every primary, and their identity."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import redis
from redis.backoff import ExponentialBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.retry import Retry

Client = redis.Redis | RedisCluster
RESENDS: Final = 2  # a call without an answer is sent again: one that was applied answers REPLAY


@dataclass(frozen=True, slots=True)
class RedisAccess:
    """Credentials that the address does not contain; PEM files for `rediss://`."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None  # None: the system's authorities
    cert_file: Path | None = None
    key_file: Path | None = None

    def arguments(self) -> dict[str, Any]:
        """Return redis-py's arguments for the fields that are set."""
        options = {
            "username": self.username,
            "password": self.password,
            "ssl_ca_certs": self.ca_file and str(self.ca_file),
            "ssl_certfile": self.cert_file and str(self.cert_file),
            "ssl_keyfile": self.key_file and str(self.key_file),
        }
        return {name: value for name, value in options.items() if value is not None}


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
    common: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(ExponentialBackoff(cap=0.1, base=0.01), RESENDS),
        "protocol": 2,
        **access.arguments(),
    }
    if cluster:
        return RedisCluster.from_url(url, redis_connect_func=lambda _: connected(), **common)

    def greet(connection: Any) -> None:
        connection.on_connect()
        connected()

    return redis.Redis.from_url(url, redis_connect_func=greet, **common)


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
class Identity:
    """The identity of all primaries together, which changes when acknowledged writes may be lost.

    That is when a server restarts without its data, is emptied, evicts, or a replica without the
    write is promoted: its run id, replication id, count of evicted keys, or the random value of our
    key `et:epoch:{n}` changes (n: the smallest number in the primary's slots; no TTL).
    """

    digest: str  # 16 hex digits
    epochs: tuple[bytes | None, ...]  # by primary


def read_identity(client: Client) -> Identity:
    """Read the identity; set our key in a primary without it. Raises `redis.RedisError`."""
    keys = _epoch_keys(client)
    for key in keys:
        client.set(key, secrets.token_hex(16), nx=True)
    epochs = read_epochs(client)
    digest = blake2b(digest_size=8)
    infos = info_of(client, "server", "replication", "stats")
    for info, epoch in zip(infos, epochs, strict=True):
        facts = (info["run_id"], info["master_replid"], info["evicted_keys"], epoch)
        digest.update(repr(facts).encode())
    return Identity(digest.hexdigest(), epochs)


def read_epochs(client: Client) -> tuple[bytes | None, ...]:
    """Return the values of our keys, one round trip a primary. Raises `redis.RedisError`."""
    values: Sequence[Any] = [client.get(key) for key in _epoch_keys(client)]
    return tuple(values)


def _epoch_keys(client: Client) -> list[str]:
    """Return the key of ours in each primary, which vanishes with the data."""
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
