"""The identity of a Redis, which changes when acknowledged writes may have been lost.

A write that was acknowledged can vanish: the server restarts without its data, is emptied, evicts,
or a replica without the write is promoted. Each changes one of four values of a primary: its run
id, its replication id, the number of keys it evicted, and a random value that we store in it under
a key of our own.

    et:epoch:{<n>}   string   32 hex digits, no TTL; n: the smallest number in the primary's slots
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from redis.cluster import RedisCluster
from redis.crc import key_slot

from state.redis_link import Client, info_of, primaries


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of all primaries together, and the values of our keys in them."""

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
