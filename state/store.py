"""The seam between the worker and where conversations are kept: protocol, semantics, errors.

Two implementations ship (`memory_store`, `redis_store`) and one contract suite runs on both.

A store keeps, per `StateKey`: a `Conversation` written under one spec digest, and the *outputs* of
positions applied but not yet confirmed as committed by the broker, so that a redelivered record is
answered with the same bytes. Every write is a compare-and-append: it carries a fence token and the
offset the writer believes to be stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from msgspec import Struct

from state.window import Change, Conversation, StateKey


class StoreError(Exception):
    """Root of what a store raises."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or refuses work for now. What was sent may be written: retry."""


class StoreChanged(StoreError):
    """The store is not the one it was: acknowledged writes may be gone.

    It came back empty, older or as another server, or it evicted. What was read from it meanwhile
    must not be used; `identify` accepts it as it is now.
    """


class StoreRefused(StoreError):
    """The store is one we must not use (too old, may evict); says the cure."""


class StateCorrupt(StoreError):
    """Stored bytes do not decode; names the key.

    `load_many` does not raise it, so that one damaged state never stops the others of its batch:
    it answers `Loaded.corrupt`.
    """


class SaveResult(Enum):
    """What became of one compare-and-append."""

    SAVED = "saved"
    REPLAY = "replay"  # the position was already applied: also a timed-out call sent again
    FENCED = "fenced"  # a newer owner of the partition has written: nothing written
    LOST = "lost"  # what is stored is not what the writer built upon: nothing written


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """What was sent for one position; `payload` is opaque to the store."""

    outcome: str
    payload: bytes


class Loaded(Struct, frozen=True):
    """What is stored under one key.

    `conversation` is None when nothing is there, or when something is that must not be read
    (`foreign`: written under another spec digest, or damaged). `offset` and `outputs` are valid in
    all cases: positions are compared, and stored outputs are replayed, whoever wrote them. `offset`
    is -1 where nothing was ever applied. `corrupt` says, for the log, what did not decode: the
    whole conversation when `foreign`, else only some outputs.
    """

    conversation: Conversation | None
    offset: int
    outputs: Mapping[int, StoredOutput]
    foreign: bool = False
    corrupt: str | None = None


class Save(Struct, frozen=True):
    """One compare-and-append: applied iff token >= stored token and stored offset == expected.

    A missing state counts as stored offset -1. A state under another digest answers LOST, unless
    `replace_foreign`: then what is stored is replaced whole by `change.after` (rows, speakers,
    arrays, ids), outputs kept.
    """

    key: StateKey
    token: int
    expected_offset: int
    change: Change
    output: StoredOutput
    committed_offset: int  # broker-confirmed: outputs at offsets below it are dropped
    replace_foreign: bool = False


@dataclass(frozen=True, slots=True)
class Restore:
    """A state rebuilt from the log, to be written whole in place of what is stored.

    Applied iff token >= stored token and stored offset == `expected_offset` (-1 for missing).
    Outputs up to the conversation's position stay: they are replayed whoever wrote them.
    """

    key: StateKey
    token: int
    expected_offset: int
    conversation: Conversation


class Saved(Struct, frozen=True):
    """Answer to one `Save` or `Restore`.

    `token` and `offset` are what is stored now (for FENCED and LOST).
    """

    result: SaveResult
    token: int
    offset: int


class Store(Protocol):
    """Conversations by key. One round trip a call; a call may block up to the store's timeout.

    Once identified, every call but `identify` and `check` may raise `StoreChanged`, and a key is
    never called missing by a store that may have lost it.
    """

    def identify(self) -> str:
        """Say which store this is, and mean this one from now on: 16 hex digits.

        Equal digits mean that no acknowledged write was lost in between. Raises
        `StoreUnavailable`.
        """
        ...

    def verify(self) -> None:
        """Return when the store answers and is the one identified, if one was."""
        ...

    def check(self) -> None:
        """Raise `StoreRefused` or `StoreUnavailable` with a sentence that says what to do."""
        ...

    def claim(self, topic_id: str, partition: int, at_least: int = 0) -> int:
        """Return a fence token greater than any claimed before for this partition.

        It is max(stored + 1, `at_least`, store time in us): it cannot go back when the store is
        emptied.
        """
        ...

    def load_many(self, keys: Sequence[StateKey]) -> list[Loaded]:
        """Return what is stored under each key, in order. Raises `StoreUnavailable`."""
        ...

    def point_many(self, keys: Sequence[StateKey]) -> list[bool]:
        """Note where each conversation is now; say which was last noted on another partition.

        Only tells people of producers that partition differently (or of added partitions): a
        state on another partition is another state either way. Raises `StoreUnavailable`.
        """
        ...

    def save_many(self, saves: Sequence[Save]) -> list[Saved]:
        """Apply each save on its own, in order, in one round trip. Raises `StoreUnavailable`.

        A save that was applied although its answer was lost answers REPLAY when sent again.
        """
        ...

    def restore_many(self, restores: Sequence[Restore]) -> list[Saved]:
        """Write each rebuilt state, in order, in one round trip: SAVED, FENCED or LOST."""
        ...

    def close(self) -> None:
        """Release connections; idempotent."""
        ...
