"""Read conversations in Redis with plain read commands: for `verify` and `conversations show`.

Has the key schema a second time and shares only the codec with the worker's store, so that a fault
there cannot hide itself here. Writes nothing, runs no function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import redis
from redis.exceptions import RedisClusterException

from state.codec import TOKEN, Codec, Entries, key_tag, noted_tag, stored_int
from state.redis_address import read_address
from state.redis_faults import fault_of
from state.redis_link import ANYONE, RedisAccess, close_client, open_client
from state.store import Loaded, StoreUnavailable
from state.window import StateKey, StateSpec

TIMEOUT_S: Final = 5.0
AT_ONCE: Final = 50  # states in one transaction: the server does nothing else meanwhile
NEVER: Final = -1  # PTTL of a key that does not expire
T = TypeVar("T")


class StateReader:
    """`States` in Redis. A single server is connected on first use, a cluster at once.

    Raises `StoreUnavailable` where Redis does not answer, ValueError for a malformed address.
    """

    def __init__(
        self,
        url: str,
        spec: StateSpec,
        *,
        cluster: bool = False,
        access: RedisAccess = ANYONE,
        dictionary: bytes = b"",
    ) -> None:
        self._codec = Codec(spec, dictionary)
        self._address = read_address(url)
        self._at_once = 1 if cluster else AT_ONCE  # a transaction has one slot
        self._redis: Any = self._call(
            lambda: open_client(
                url, cluster=cluster, timeout_s=TIMEOUT_S, access=access, connected=lambda: None
            )
        )

    def read(self, keys: Sequence[StateKey]) -> list[StoredState | None]:
        states: list[StoredState | None] = []
        for start in range(0, len(keys), self._at_once):
            some = keys[start : start + self._at_once]
            answers = self._call(partial(self._read, some))
            states += [self._decode(key, answers[8 * i : 8 * i + 8]) for i, key in enumerate(some)]
        return states

    def _read(self, keys: Sequence[StateKey]) -> list[Any]:
        """Return four values and four times to live of each key, in one transaction."""
        pipeline = self._redis.pipeline(transaction=True)
        for key in keys:
            rows, fields, ids, outputs = state_keys(key)
            pipeline.lrange(rows, 0, -1)
            pipeline.hgetall(fields)
            pipeline.lrange(ids, 0, -1)
            pipeline.zrange(outputs, 0, -1)
            for name in (rows, fields, ids, outputs):
                pipeline.pttl(name)
        answers: list[Any] = pipeline.execute()
        return answers

    def _decode(self, key: StateKey, answers: Sequence[Any]) -> StoredState | None:
        rows, fields, ids, outputs, *ttls = answers
        if isinstance(fields, list):  # a cluster's pipeline returns HGETALL unparsed
            fields = dict(zip(fields[::2], fields[1::2], strict=True))
        if not (rows or fields or ids or outputs):
            return None
        return StoredState(
            self._codec.decode(key, Entries(rows, fields, ids, outputs)),
            stored_int(fields.get(TOKEN)),
            len(rows),
            len(ids),
            len(outputs),
            tuple(ttl for ttl in ttls if ttl >= NEVER),
        )

    def noted(self, key: StateKey) -> frozenset[int]:
        """Return the partitions that workers noted for `key`'s conversation and topic."""
        noted = self._call(lambda: self._redis.smembers(noted_key(key)))
        return frozenset(int(partition) for partition in noted)

    def close(self) -> None:
        """Release connections; idempotent."""
        close_client(self._redis)

    def _call(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except (redis.RedisError, RedisClusterException) as error:
            here, tls = f"Redis at {self._address.shown}", self._address.tls
            raise StoreUnavailable(str(fault_of(error, here, running=False, tls=tls))) from None


def state_keys(key: StateKey) -> tuple[str, str, str, str]:
    """Return the Redis keys of a state: rows, hash, ids, outputs."""
    stem = f"et:{{{key_tag(key)}}}:"
    return stem + "r", stem + "h", stem + "i", stem + "o"


def noted_key(key: StateKey) -> str:
    """Return the Redis key of the partitions that a conversation was noted on."""
    return f"et:on:{{{noted_tag(key)}}}"


@dataclass(frozen=True, slots=True)
class StoredState:
    """One state as stored: decoded, and the sizes and times to live of its keys."""

    loaded: Loaded
    token: int | None
    rows: int
    ids: int
    outputs: int
    ttl_ms: tuple[int, ...]  # of each of its keys that exists; -1: never expires


class States(Protocol):
    """A source of stored states."""

    def read(self, keys: Sequence[StateKey]) -> list[StoredState | None]:
        """Return the state stored under each key, in order; None where there is none."""
