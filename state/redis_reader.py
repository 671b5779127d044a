"""Look at conversations in Redis with plain read commands: for `verify` and `conversations show`.

Knows the key schema for itself and shares only the codec with the worker's store, so that a fault
there cannot hide itself here. Writes nothing, runs no function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import redis
from redis.exceptions import RedisClusterException

from state.codec import TOKEN, Codec, Entries, key_tag, pointer_tag, stored_int
from state.redis_link import ANYONE, RedisAccess
from state.store import Loaded, StoreUnavailable
from state.window import StateKey, StateSpec

TIMEOUT_S: Final = 5.0
AT_ONCE: Final = 50  # states in one transaction: the server does nothing else meanwhile
NEVER: Final = -1  # PTTL of a key that does not expire
T = TypeVar("T")


class StateReader:
    """`States` in Redis. A single server is connected on first use, a cluster at once.

    Raises `StoreUnavailable` where Redis does not answer, ValueError for an address that is none.
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
        kind = redis.RedisCluster if cluster else redis.Redis
        self._at_once = 1 if cluster else AT_ONCE  # a transaction has one slot
        self._redis: Any = self._call(
            lambda: kind.from_url(
                url,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                protocol=2,
                **access.arguments(),
            )
        )

    def read(self, keys: Sequence[StateKey]) -> list[Held | None]:
        found: list[Held | None] = []
        for start in range(0, len(keys), self._at_once):
            some = keys[start : start + self._at_once]
            answers = self._call(partial(self._read, some))
            found += [self._held(key, answers[8 * i : 8 * i + 8]) for i, key in enumerate(some)]
        return found

    def _read(self, keys: Sequence[StateKey]) -> list[Any]:
        """Four values and four times to live of each key, all of one moment."""
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

    def _held(self, key: StateKey, answers: Sequence[Any]) -> Held | None:
        rows, fields, ids, outputs, *ttls = answers
        if isinstance(fields, list):  # a cluster's pipeline hands HGETALL over as it came
            fields = dict(zip(fields[::2], fields[1::2], strict=True))
        if not (rows or fields or ids or outputs):
            return None
        entries = Entries(rows=rows, fields=fields, ids=ids, outputs=outputs)
        return held(self._codec, key, entries, tuple(t for t in ttls if t >= NEVER))

    def pointer(self, key: StateKey) -> int | None:
        """The partition a conversation of `key`'s topic was last seen on, as its worker noted."""
        noted = self._call(lambda: self._redis.get(pointer_key(key)))
        return stored_int(noted if isinstance(noted, bytes) else None)

    def close(self) -> None:
        """Release connections; idempotent."""
        self._redis.close()

    def _call(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except (redis.RedisError, RedisClusterException) as error:
            raise StoreUnavailable(str(error)) from None


def state_keys(key: StateKey) -> tuple[str, str, str, str]:
    """The Redis keys of a state: rows, hash, ids, outputs."""
    stem = f"et:{{{key_tag(key)}}}:"
    return stem + "r", stem + "h", stem + "i", stem + "o"


def pointer_key(key: StateKey) -> str:
    """The Redis key that names the partition a conversation was last seen on."""
    return f"et:at:{{{pointer_tag(key)}}}"


@dataclass(frozen=True, slots=True)
class Held:
    """One state as it is in the store."""

    loaded: Loaded
    token: int | None
    rows: int
    ids: int
    outputs: int
    ttl_ms: tuple[int, ...]  # of each of its keys that exists; -1: never expires


class States(Protocol):
    """A place to look at states."""

    def read(self, keys: Sequence[StateKey]) -> list[Held | None]:
        """Return the state stored under each key, in order; None where there is none."""
        ...


def held(codec: Codec, key: StateKey, entries: Entries, ttl_ms: tuple[int, ...]) -> Held:
    """Read a state as it is in a store from its bytes."""
    return Held(
        codec.decode_or_missing(key, entries),
        stored_int(entries.fields.get(TOKEN)),
        len(entries.rows),
        len(entries.ids),
        len(entries.outputs),
        ttl_ms,
    )
