"""Conversations in this process: for the demo without Redis, and for tests.

Stores the bytes that Redis would store and takes the same decisions, so that one contract suite
runs on both. Bounded by the same TTL. Not thread-safe.
"""

from __future__ import annotations

import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from state.codec import (
    DIGEST,
    OFFSET,
    TOKEN,
    Append,
    Codec,
    Entries,
    aside_key,
    output_offset,
    stored_int,
)
from state.store import (
    NOTED_BEFORE_S,
    SPLITS_AT_MOST,
    Loaded,
    Noted,
    Restore,
    Save,
    Saved,
    SaveResult,
    Splits,
    StoreChanged,
)
from state.window import KNOWN_BYTES, NO_OFFSET, Conversation, StateKey, StateSpec, life_ms


@dataclass(slots=True)
class Memory:
    """Entries and fences by key, which memory stores share as workers share a Redis.

    Ordered by the last write, so nearly by expiry: one that lives longer (`life_ms`) keeps those
    after it.
    """

    states: OrderedDict[StateKey, tuple[float, Entries]] = field(default_factory=OrderedDict)
    fences: dict[tuple[str, int], int] = field(default_factory=dict)
    noted: OrderedDict[tuple[str, str], tuple[float, set[int]]] = field(default_factory=OrderedDict)
    # By topic and partition: conversations also met elsewhere, and the number of all before them.
    splits: dict[tuple[str, int], tuple[int, list[str]]] = field(default_factory=dict)
    identity: str = field(default_factory=lambda: secrets.token_hex(8))


class MemoryStore:
    """A `Store` in memory. `now` returns seconds since the epoch; `memory` may be shared."""

    def __init__(
        self,
        spec: StateSpec,
        *,
        now: Callable[[], float] = time.time,
        memory: Memory | None = None,
        dictionary: bytes = b"",
    ) -> None:
        self._codec = Codec(spec, dictionary)
        self._now = now
        self._memory = Memory() if memory is None else memory
        self._ttl_s = 2 * spec.recurrence.idle_s
        self._identified: str | None = None

    def identify(self) -> str:
        self._identified = self._memory.identity
        return self._identified

    def verify(self) -> None:
        if self._identified not in (None, self._memory.identity):
            raise StoreChanged("the memory was emptied")

    def check(self) -> None:
        """Memory is always fit."""

    def claim(self, topic_id: str, partition: int, at_least: int = 0) -> int:
        stored = self._memory.fences.get((topic_id, partition), 0)
        token = max(stored + 1, at_least, int(self._now() * 1_000_000))
        self._memory.fences[topic_id, partition] = token
        return token

    def load_many(self, keys: Sequence[StateKey]) -> list[Loaded]:
        self.verify()
        self._expire()
        return [self._codec.decode(key, self.entries(key)) for key in keys]

    def note_many(self, keys: Sequence[StateKey]) -> list[Noted]:
        self._expire()
        return [self._note(key) for key in keys]

    def _note(self, key: StateKey) -> Noted:
        at, noted = (key.conversation_id, key.topic_id), self._memory.noted
        until, partitions = noted.pop(at, (math.inf, set[int]()))
        new = key.partition not in partitions
        old = until - self._now() < self._ttl_s - min(NOTED_BEFORE_S, self._ttl_s / 2)
        partitions.add(key.partition)
        noted[at] = (self._now() + self._ttl_s, partitions)
        for other in sorted(partitions - {key.partition}):
            gone, named = self._memory.splits.get((key.topic_id, other), (0, []))
            named = [*named, key.conversation_id]
            gone += len(named[:-SPLITS_AT_MOST])
            self._memory.splits[key.topic_id, other] = gone, named[-SPLITS_AT_MOST:]
        return Noted(frozenset(partitions), new, old and not new)

    def splits(self, topic_id: str, marks: Mapping[int, str]) -> dict[int, Splits]:
        found: dict[int, Splits] = {}
        for partition, mark in marks.items():
            gone, named = self._memory.splits.get((topic_id, partition), (0, []))
            seen = int(mark or 0)
            after = str(gone + len(named)) if named else mark
            found[partition] = Splits(tuple(named[max(0, seen - gone) :]), after)
        return found

    def save_many(self, saves: Sequence[Save]) -> list[Saved]:
        self._expire()
        return [self._apply(self._codec.encode(save)) for save in saves]

    def restore_many(self, restores: Sequence[Restore]) -> list[Saved]:
        self.verify()
        self._expire()
        return [self._apply(self._codec.encode_restore(restore)) for restore in restores]

    def set_aside(self, keys: Sequence[StateKey], token: int) -> None:
        self.verify()
        self._expire()
        for key in keys:
            entries = self.entries(key)
            digest = entries.fields.get(DIGEST)
            if digest is None or digest == self._codec.digest:
                continue
            copy = Entries(list(entries.rows), dict(entries.fields), list(entries.ids))
            at = aside_key(key, digest)
            self._memory.states[at] = (self._now() + self._ttl_s, copy)
            self._memory.states.move_to_end(at)

    def load_aside(self, keys: Sequence[StateKey]) -> list[Conversation | None]:
        found = self.load_many([aside_key(key, self._codec.digest) for key in keys])
        return [loaded.conversation for loaded in found]

    def close(self) -> None:
        """Nothing to release."""

    def entries(self, key: StateKey) -> Entries:
        """Return the stored bytes of a key, empty where there are none."""
        stored = self._memory.states.get(key)
        return Entries() if stored is None else stored[1]

    def _expire(self) -> None:
        now = self._now()
        states, noted = self._memory.states, self._memory.noted
        while states and next(iter(states.values()))[0] <= now:
            states.popitem(last=False)
        while noted and next(iter(noted.values()))[0] <= now:
            noted.popitem(last=False)

    def _apply(self, append: Append) -> Saved:
        key = append.save.key
        entries = self.entries(key)
        token = stored_int(entries.fields.get(TOKEN)) or 0
        offset = stored_int(entries.fields.get(OFFSET))
        stored = NO_OFFSET if offset is None else offset
        if append.save.token < token:
            return Saved(SaveResult.FENCED, token, stored)
        if stored >= append.offset and not append.restore:
            return Saved(SaveResult.REPLAY, token, stored)
        foreign = stored != NO_OFFSET and entries.fields.get(DIGEST) != append.digest
        if stored != append.save.expected_offset or (foreign and not append.save.replace_foreign):
            return Saved(SaveResult.LOST, token, stored)
        self._write(entries, append)
        now, recurrence = self._now(), self._codec.spec.recurrence
        life_s = life_ms(append.clock_ms, int(now * 1000), recurrence) / 1000
        self._memory.states[key] = (now + life_s, entries)
        self._memory.states.move_to_end(key)
        return Saved(SaveResult.SAVED, append.save.token, append.offset)

    def _write(self, entries: Entries, append: Append) -> None:
        r = self._codec.spec.recurrence
        if append.clear_state:
            entries.rows.clear()
            entries.fields.clear()
        if append.clear_ids:
            entries.ids.clear()
        entries.rows[:] = (entries.rows + list(append.rows))[-r.window :]
        entries.fields |= append.fields
        entries.fields[TOKEN] = b"%d" % append.save.token
        entries.fields[OFFSET] = b"%d" % append.offset
        entries.fields[DIGEST] = append.digest
        for name in append.forgotten:
            entries.fields.pop(name, None)
        new = [append.ids[i : i + KNOWN_BYTES] for i in range(0, len(append.ids), KNOWN_BYTES)]
        entries.ids[:] = (entries.ids + new)[-r.duplicate_horizon :] if r.duplicate_horizon else []
        below = append.offset + append.restore  # a restored position keeps its output
        outputs = [o for o in entries.outputs if output_offset(o) < below]
        if not append.restore:
            outputs.append(append.output)
        entries.outputs[:] = [
            o for o in outputs if output_offset(o) >= append.save.committed_offset
        ]
