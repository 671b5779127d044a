"""One conversation's state as it lies in a store, for those who only look: decoded, and counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from state.codec import TOKEN, Codec, Entries, stored_int
from state.store import Loaded
from state.window import StateKey


@dataclass(frozen=True, slots=True)
class Held:
    """One state as it lies in the store."""

    loaded: Loaded
    token: int | None
    rows: int
    ids: int
    outputs: int
    ttl_ms: tuple[int, ...]  # of each of its keys that exists; -1: never expires


class States(Protocol):
    """Where states are looked at."""

    def read(self, keys: Sequence[StateKey]) -> list[Held | None]:
        """What lies under each key, in order; None where nothing does."""
        ...


def held(codec: Codec, key: StateKey, entries: Entries, ttl_ms: tuple[int, ...]) -> Held:
    """A state as it lies in a store, from its bytes."""
    return Held(
        codec.decode_or_missing(key, entries),
        stored_int(entries.fields.get(TOKEN)),
        len(entries.rows),
        len(entries.ids),
        len(entries.outputs),
        ttl_ms,
    )
