"""Open the Redis that the settings name, or say in one sentence why it cannot be used."""

from __future__ import annotations

from typing import Final

from state.redis_link import RedisAccess
from state.redis_store import RedisStore
from state.store import StoreError
from state.window import Recurrence, StateSpec
from stream.errors import StoreUnfit
from stream.security import tls_fault
from stream.settings import Settings

NO_STATE: Final = StateSpec((), (), (), Recurrence(), "none")  # enough to look at a Redis


def open_redis(settings: Settings, spec: StateSpec) -> RedisStore:
    """Connect and check version, eviction policy, function and rights. Raises `StoreUnfit`."""
    try:
        store = RedisStore(
            spec,
            settings.redis_url,
            cluster=settings.redis_cluster,
            access=access_of(settings),
        )
        try:
            store.check()
        except StoreError:
            store.close()
            raise
    except StoreError as error:
        where = f"EMOTRACK_REDIS_URL={settings.masked_redis_url}"
        if meaning := redis_tls_fault(str(error)):
            raise StoreUnfit(f"TLS with Redis: {meaning} ({where})") from None
        raise StoreUnfit(f"{error} ({where})") from None
    return store


def require_redis(settings: Settings) -> None:
    """Return when that Redis can be used, whatever the model. Raises `StoreUnfit`."""
    open_redis(settings, NO_STATE).close()


def access_of(settings: Settings) -> RedisAccess:
    """Who we are to Redis."""
    return RedisAccess(
        username=settings.redis_username,
        password=settings.redis_password,
        ca_file=settings.redis_ca_file,
        cert_file=settings.redis_cert_file,
        key_file=settings.redis_key_file,
    )


def redis_tls_fault(said: str) -> str | None:
    """`tls_fault` with the settings of Redis."""
    return tls_fault(
        said,
        ca="name it in EMOTRACK_REDIS_CA_FILE",
        cert="set EMOTRACK_REDIS_CERT_FILE and EMOTRACK_REDIS_KEY_FILE",
        plain="check the port, or use redis:// in EMOTRACK_REDIS_URL",
    )
