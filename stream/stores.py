"""Redis as the settings name it: credentials, faults in a sentence, and a reader of states."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from state.redis_link import RedisAccess
from state.redis_reader import StateReader
from state.store import StoreUnavailable
from state.window import StateSpec
from stream.answers.output_dictionary import OUTPUT_DICTIONARY
from stream.errors import StoreUnfit
from stream.security import tls_fault
from stream.settings import Settings, masked_url


def access_of(settings: Settings) -> RedisAccess:
    """Return our credentials for Redis."""
    return RedisAccess(
        username=settings.redis_username,
        password=settings.redis_password,
        ca_file=settings.redis_ca_file,
        cert_file=settings.redis_cert_file,
        key_file=settings.redis_key_file,
        sentinel_username=settings.redis_sentinel_username,
        sentinel_password=settings.redis_sentinel_password,
    )


def redis_fault(error: Exception, otherwise: str) -> str:
    """Return a TLS fault with its cure in the settings of Redis; `otherwise` for any other."""
    meaning = tls_fault(
        str(error),
        ca="name it in EMOTRACK_REDIS_CA_FILE",
        cert="set EMOTRACK_REDIS_CERT_FILE and EMOTRACK_REDIS_KEY_FILE",
        plain="check the port, or use redis:// in EMOTRACK_REDIS_URL",
    )
    return f"TLS with Redis: {meaning}" if meaning else otherwise


@contextmanager
def open_states(settings: Settings, spec: StateSpec) -> Iterator[StateReader]:
    """Open that Redis for reading only. Raises `StoreUnfit`, within the context too."""
    try:
        try:
            states = StateReader(
                settings.redis_url,
                spec,
                cluster=settings.redis_cluster,
                access=access_of(settings),
                dictionary=OUTPUT_DICTIONARY,
            )
        except ValueError as error:
            raise StoreUnfit(f"{where_of(settings)}: the address {error}") from None
        with closing(states):
            yield states
    except StoreUnavailable as error:
        raise StoreUnfit(f"{redis_fault(error, str(error))} ({where_of(settings)})") from None


def where_of(settings: Settings) -> str:
    """Return the setting that names the Redis, without a password."""
    return f"EMOTRACK_REDIS_URL={masked_url(settings.redis_url)}"
