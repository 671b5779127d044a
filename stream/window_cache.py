"""The windows an owner keeps at hand: only the new entry of a conversation travels to the store."""

from __future__ import annotations

from collections import OrderedDict

from state.window import Conversation, StateKey


class WindowCache:
    """A bounded map from key to conversation; the least recently used leaves first.

    Only what this owner has itself saved under its fence token is in here, so that an entry equals
    the store unless the store lost something, which the compare-and-append then says.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[StateKey, Conversation] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: StateKey) -> Conversation | None:
        """Return the conversation and mark it as used."""
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: StateKey, conversation: Conversation) -> None:
        """Keep a conversation as it was just saved."""
        self._entries[key] = conversation
        self._entries.move_to_end(key)
        while len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def drop(self, key: StateKey) -> None:
        """Forget one conversation: the store must be asked again."""
        self._entries.pop(key, None)

    def drop_partition(self, partition: int) -> None:
        """Forget all conversations of a partition that is no longer ours."""
        for key in [k for k in self._entries if k.partition == partition]:
            del self._entries[key]
