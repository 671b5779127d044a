"""The windows an owner caches, so that only a conversation's new entry goes to the store."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

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
