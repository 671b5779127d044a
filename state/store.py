"""The seam between the worker and the store of conversations: protocol, semantics, errors.

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
from typing import Final, Protocol

from msgspec import Struct

from state.window import Change, Conversation, StateKey


class StoreError(Exception):
    """Root of the errors a store raises."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or refuses work for now. Writes may have been applied: retry."""


class StoreChanged(StoreError):
    """The store is not the one it was: acknowledged writes may be gone.

    It came back empty, older or as another server, it evicted, or its clock jumped and keys of open
    sessions expired. Reads since then must not be used; `identify` accepts the store as it is now.
    """


class StoreRefused(StoreError):
    """The store must not be used (too old, may evict); the message names the cure."""


class SaveResult(Enum):
    """Outcome of one compare-and-append."""

    SAVED = "saved"
    REPLAY = "replay"  # the position was already applied, perhaps by a timed-out call sent again
    FENCED = "fenced"  # a newer owner of the partition has written: nothing written
    LOST = "lost"  # the stored state is not the one the writer built upon: nothing written


@dataclass(frozen=True, slots=True)
class StoredOutput:
    """The output sent for one position; `payload` is opaque to the store."""

    outcome: str
    payload: bytes


class Loaded(Struct, frozen=True):
    """The state stored under one key.

    `conversation` is None when nothing is stored, or when the stored state must not be read
    (`foreign`: written under another spec digest, or damaged). `offset` and `outputs` are valid in
    all cases: positions are compared and stored outputs replayed, whichever model wrote them.
    `offset` is -1 where nothing was ever applied. `corrupt` names, for the log, what did not
    decode: the whole conversation when `foreign`, else only some outputs. It is no exception, so
    that one damaged state never stops the others of its batch.
    """

    conversation: Conversation | None
    offset: int
    outputs: Mapping[int, StoredOutput]
    foreign: bool = False
    corrupt: str | None = None


class Save(Struct, frozen=True):
    """One compare-and-append: applied iff token >= stored token and stored offset == expected.

    A missing state counts as stored offset -1. A state under another digest answers LOST, unless
    `replace_foreign`: then the stored state is replaced whole by `change.after` (rows, speakers,
    arrays, ids), and its outputs stay.
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
    """A state rebuilt from the log, to be written whole in place of the stored one.

    Applied iff token >= stored token and stored offset == `expected_offset` (-1 for missing).
    Outputs up to the conversation's position stay: they are replayed whichever model wrote them.
    """

    key: StateKey
    token: int
    expected_offset: int
    conversation: Conversation


class Saved(Struct, frozen=True):
    """Answer to one `Save` or `Restore`, with the token and offset that are stored now."""

    result: SaveResult
    token: int
    offset: int


NOTED_BEFORE_S: Final = 60.0  # longer than a killed worker's successor takes to begin


class Noted(Struct, frozen=True):
    """The partitions a conversation was noted on; `new` where the one just noted was not yet.

    `before` where it was, and the latest note was `NOTED_BEFORE_S` old: a state was written right
    after that one, and outlives it.
    """

    partitions: frozenset[int]
    new: bool
    before: bool = False


class Splits(Struct, frozen=True):
    """Conversations of a partition that were met on another one too, in the order of the notes."""

    conversation_ids: tuple[str, ...]
    mark: str  # the next call continues from here


SPLITS_AT_MOST: Final = 1_000  # of a partition, the latest; a note of a conversation tells as much


class Store(Protocol):
    """Conversations by key. One round trip a call; a call may block up to the store's timeout.

    Once identified, every call but `identify` and `check` may raise `StoreChanged`, and a store
    that may have lost a key never reports it as missing.
    """

    def identify(self) -> str:
        """Return the store's identity, 16 hex digits, and require it from now on.

        Equal digits mean that no acknowledged write was lost in between. Raises
        `StoreUnavailable`.
        """

    def verify(self) -> None:
        """Return when the store answers and is the one identified, if one was."""

    def check(self) -> None:
        """Raise `StoreRefused` or `StoreUnavailable`, naming the cure, for an unfit store."""

    def claim(self, topic_id: str, partition: int, at_least: int = 0) -> int:
        """Return a fence token greater than any claimed before for this partition.

        It is max(stored + 1, `at_least`, store time in us): it does not go back when the store is
        emptied, and not when its clock is set back; both at once leave no state to be fenced.
        """

    def load_many(self, keys: Sequence[StateKey]) -> list[Loaded]:
        """Return the state stored under each key, in order. Raises `StoreUnavailable`."""

    def note_many(self, keys: Sequence[StateKey]) -> list[Noted]:
        """Note each conversation's partition; return all that were noted within 2 x idle_s.

        Where there are several, `splits` of the others names the conversation from now on: their
        owners may have read a note of their own before. Serves only to mark answers of producers
        that partition differently (or of added partitions): a state on another partition is
        another state either way. Raises `StoreUnavailable`.
        """

    def splits(self, topic_id: str, marks: Mapping[int, str]) -> dict[int, Splits]:
        """Return the splits of each partition since its mark; "" is the first mark.

        One round trip for all partitions. Raises `StoreUnavailable`.
        """

    def save_many(self, saves: Sequence[Save]) -> list[Saved]:
        """Apply each save on its own, in order, in one round trip. Raises `StoreUnavailable`.

        A save that was applied although its answer was lost answers REPLAY when sent again.
        """

    def restore_many(self, restores: Sequence[Restore]) -> list[Saved]:
        """Write each rebuilt state, in order, in one round trip: SAVED, FENCED or LOST."""

    def set_aside(self, keys: Sequence[StateKey], token: int) -> None:
        """Copy each state that has another digest to where a worker of that digest finds it.

        For before it is replaced. A copy lives for 2 x idle_s and only saves work: none is made
        where the state is being written or another owner copies it. Raises `StoreUnavailable`.
        """

    def load_aside(self, keys: Sequence[StateKey]) -> list[Conversation | None]:
        """Return the copy that was set aside of each state of this digest, as it was then.

        Its position is the last one that this digest applied. None where there is none, or it is
        damaged. Raises `StoreUnavailable`.
        """

    def close(self) -> None:
        """Release connections; idempotent."""
