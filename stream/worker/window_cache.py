"""The owner's caches by conversation: its window, and the partitions it is on.

With the windows only a conversation's new entry goes to the store. `Places` marks answers only: a
state on another partition is another state in any case.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from msgspec import Struct

from state.store import Store
from state.window import Conversation, StateKey


class WindowCache:
    """A bounded map from key to conversation; the least recently saved leaves first.

    It has only states that this owner saved under its fence token, so that an entry equals the
    store unless the store lost something, which the compare-and-append then reports.
    """

    def __init__(self, capacity: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._capacity, self._clock_s = capacity, clock_s
        self._entries: OrderedDict[StateKey, tuple[Conversation, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: StateKey) -> Conversation | None:
        """Return the conversation as it was last saved."""
        found = self._entries.get(key)
        return None if found is None else found[0]

    def put(self, key: StateKey, conversation: Conversation) -> None:
        """Cache a conversation as it was just saved."""
        self._entries[key] = conversation, self._clock_s()
        self._entries.move_to_end(key)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def drop(self, key: StateKey) -> None:
        """Forget one conversation: the store must be read again."""
        self._entries.pop(key, None)

    def drop_idle(self, idle_s: float) -> None:
        """Forget conversations not saved for `idle_s`: they most likely start a new session.

        Where they do not (this owner lags behind), the store is read.
        """
        before = self._clock_s() - idle_s
        while self._entries:
            key = next(iter(self._entries))
            if self._entries[key][1] >= before:
                return
            del self._entries[key]

    def drop_partition(self, partition: int) -> None:
        """Forget all conversations of a partition that is no longer ours."""
        for key in [k for k in self._entries if k.partition == partition]:
            del self._entries[key]


class Split(Struct, frozen=True):
    """A conversation that was met on one more partition."""

    conversation_id: str
    partitions: tuple[int, ...]


class Met(NamedTuple):
    """A conversation that this worker noted: when, and what the store knew of it before."""

    at_s: float
    split: bool  # on other partitions, too
    before: bool  # on this partition, a while before our note


class Places:
    """The conversations noted by this worker in the last `again_s`, at most `capacity` of them.

    Each is noted in the store when this worker first meets it on a partition, and again before the
    note expires. A note shows the partitions of all earlier ones; their owners learn of it through
    `Store.splits`, which `look` reads.

    The least recently noted leaves first; one that left is noted again when it is met again.
    """

    def __init__(
        self, store: Store, *, capacity: int, again_s: float, clock_s: Callable[[], float]
    ) -> None:
        self._store, self._capacity = store, capacity
        self._again_s, self._clock_s = again_s, clock_s
        self._noted: OrderedDict[StateKey, Met] = OrderedDict()
        self._marks: dict[int, str] = {}
        self._found: list[Split] = []

    def __len__(self) -> int:
        return len(self._noted)

    def note(self, keys: Iterable[StateKey]) -> None:
        """Note the conversations not noted lately, in one round trip. Raises `StoreUnavailable`."""
        now = self._clock_s()
        while self._noted and next(iter(self._noted.values())).at_s <= now - self._again_s:
            self._noted.popitem(last=False)
        due = [key for key in keys if key not in self._noted]
        if not due:
            return
        for key, noted in zip(due, self._store.note_many(due), strict=True):
            split = len(noted.partitions) > 1
            self._noted[key] = Met(now, split, noted.before)
            if split and noted.new:
                self._found.append(Split(key.conversation_id, tuple(sorted(noted.partitions))))
        while len(self._noted) > self._capacity:
            self._noted.popitem(last=False)

    def is_split(self, key: StateKey) -> bool:
        """Return whether this conversation is known to be on several partitions."""
        noted = self._noted.get(key)
        return noted is not None and noted.split

    def was_known(self, key: StateKey) -> bool:
        """Return whether this partition's owner had met the conversation a while before our note.

        Its state was written then, and outlives the note: where there is none, it was deleted.
        """
        noted = self._noted.get(key)
        return noted is not None and noted.before

    def look(self, topic_id: str, partitions: Sequence[int]) -> None:
        """Learn which conversations of these partitions were met on others since the last look.

        Raises `StoreUnavailable`.
        """
        marks = {partition: self._marks.get(partition, "") for partition in partitions}
        for partition, splits in self._store.splits(topic_id, marks).items():
            self._marks[partition] = splits.mark
            for name in splits.conversation_ids:
                key = StateKey(name, topic_id, partition)
                if (noted := self._noted.get(key)) is not None:
                    self._noted[key] = noted._replace(split=True)

    def found(self) -> list[Split]:
        """Return the splits that notes of ours found since the last call."""
        found, self._found = self._found, []
        return found

    def drop_partition(self, partition: int) -> None:
        """Forget a partition that is no longer ours, or whose states may be lost."""
        self._marks.pop(partition, None)
        for key in [k for k in self._noted if k.partition == partition]:
            del self._noted[key]
