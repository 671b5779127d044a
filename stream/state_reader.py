"""Look at conversations in Redis with plain read commands: for `verify` and `conversations show`.

Knows the key schema for itself and shares only the codec with the worker's store, so that a fault
there cannot hide itself here. Writes nothing, runs no function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import redis
from redis.exceptions import RedisClusterException

from state.codec import Codec, Entries, key_tag, pointer_tag, stored_int
from state.window import StateKey, StateSpec
from stream.errors import StoreUnfit
from stream.held import Held, held
from stream.security import tls_fault
from stream.settings import Settings

TIMEOUT_S: Final = 5.0
AT_ONCE: Final = 50  # states in one transaction: the server does nothing else meanwhile
NEVER: Final = -1  # PTTL of a key that does not expire

T = TypeVar("T")


class StateReader:
    """`States` in Redis. Connects on first use; raises `StoreUnfit` with a sentence."""

    def __init__(self, settings: Settings, spec: StateSpec) -> None:
        self._where = f"EMOTRACK_REDIS_URL={settings.masked_redis_url}"
        self._codec = Codec(spec)
        given: dict[str, Any] = {
            "username": settings.redis_username,
            "password": settings.redis_password,
            "ssl_ca_certs": settings.redis_ca_file and str(settings.redis_ca_file),
            "ssl_certfile": settings.redis_cert_file and str(settings.redis_cert_file),
            "ssl_keyfile": settings.redis_key_file and str(settings.redis_key_file),
        }
        kind = redis.RedisCluster if settings.redis_cluster else redis.Redis
        self._at_once = 1 if settings.redis_cluster else AT_ONCE  # a transaction has one slot
        try:
            self._redis: Any = kind.from_url(
                settings.redis_url,
                socket_timeout=TIMEOUT_S,
                socket_connect_timeout=TIMEOUT_S,
                protocol=2,
                **{name: value for name, value in given.items() if value is not None},
            )
        except ValueError as error:
            raise StoreUnfit(f"{self._where} is no address of a Redis: {error}") from None
        except RedisClusterException as error:
            raise StoreUnfit(f"the Redis Cluster cannot be read ({error}): {self._where}") from None

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
            meaning = tls_fault(
                str(error),
                ca="name it in EMOTRACK_REDIS_CA_FILE",
                cert="set EMOTRACK_REDIS_CERT_FILE and EMOTRACK_REDIS_KEY_FILE",
                plain="check the port, or use redis:// in EMOTRACK_REDIS_URL",
            )
            fault = f"TLS with Redis: {meaning}" if meaning else f"Redis cannot be read ({error})"
            raise StoreUnfit(f"{fault}: {self._where}") from None


def state_keys(key: StateKey) -> tuple[str, str, str, str]:
    """The Redis keys of a state: rows, hash, ids, outputs."""
    stem = f"et:{{{key_tag(key)}}}:"
    return stem + "r", stem + "h", stem + "i", stem + "o"


def pointer_key(key: StateKey) -> str:
    """The Redis key that names the partition a conversation was last seen on."""
    return f"et:at:{{{pointer_tag(key)}}}"
