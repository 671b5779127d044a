"""Choice of the records that are answered together. Pure: `now` is passed in, nothing blocks.

The rules (docs/architecture.md §4): at most one utterance of a conversation in a batch; order is
preserved inside a conversation; a conversation is not admitted again before `finish`, when its save
has returned; at most `max_uncommitted` records of a partition are released and not yet committed,
which bounds what a killed worker repeats.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from state.window import StateKey
from stream.events.cloudevents import Envelope
from stream.events.messages import Utterance
from stream.events.poison import Control, Poison
from stream.ports import Record


class Item(Struct, frozen=True):
    """One decoded record. Times are monotonic seconds of this process."""

    record: Record
    message: Utterance | Control | Poison
    key: StateKey | None  # None: no conversation is touched (control, poison)
    polled_at: float
    fetch_wait_s: float = 0.0  # append to poll, never negative
    decode_s: float = 0.0
    envelope: Envelope = Envelope()  # repeated in the answer's headers


@dataclass(slots=True)
class Batcher:
    """Queued records by conversation, and the idle conversations among them, oldest first."""

    batch_max: int
    deadline_s: float
    max_uncommitted: int
    depth: int = 0  # queued, not released
    depths: Counter[int] = field(default_factory=Counter)  # the same, by partition
    _arrivals: int = 0
    # By conversation; a record without one is alone, by arrival.
    _queues: dict[StateKey | int, deque[tuple[int, Item]]] = field(default_factory=dict)
    _heads: list[tuple[int, Item]] = field(default_factory=list)  # heap: first of each idle queue
    _busy: set[StateKey] = field(default_factory=set)
    _uncommitted: Counter[int] = field(default_factory=Counter)
    _awaits_commit: bool = False

    def put(self, item: Item) -> None:
        """Queue one record; records of a partition must come in log order."""
        self._arrivals += 1
        self.depth += 1
        self.depths[item.record.partition] += 1
        entry = (self._arrivals, item)
        queue = self._queues.setdefault(item.key or self._arrivals, deque())
        queue.append(entry)
        if len(queue) == 1 and item.key not in self._busy:
            heapq.heappush(self._heads, entry)

    def next_batch(self, now: float) -> tuple[Item, ...]:
        """Release a batch if one is due, else return an empty one.

        A batch is due when it is full, when its oldest record has waited for `deadline_s`, or when
        the records left behind could not join it anyway: their conversations are in it.
        """
        if self.wait_s(now) != 0:
            return ()
        # The oldest goes first also across conversations: the record that holds back a partition's
        # watermark must get the next free place under `max_uncommitted`, or nothing would move.
        batch: list[Item] = []
        skipped: list[tuple[int, Item]] = []
        while self._heads and len(batch) < self.batch_max:
            entry = heapq.heappop(self._heads)
            if self.full(entry[1].record.partition):
                skipped.append(entry)
            else:
                batch.append(self._release(entry))
        self._awaits_commit = not batch  # all that could go belongs to full partitions
        for entry in skipped:
            heapq.heappush(self._heads, entry)
        return tuple(batch)

    def wait_s(self, now: float) -> float | None:
        """Return the seconds until a batch is due; None until records come or are committed."""
        if not self._heads or self._awaits_commit:
            return None
        if len(self._heads) >= self.batch_max or self.depth > len(self._heads):
            return 0.0
        return max(0.0, self._heads[0][1].polled_at + self.deadline_s - now)

    def finish(self, batch: Iterable[Item]) -> None:
        """Admit the conversations of a batch again: its saves have returned."""
        for item in batch:
            if item.key is not None and item.key in self._busy:
                self._busy.discard(item.key)
                if queue := self._queues.get(item.key):
                    heapq.heappush(self._heads, queue[0])

    def committed(self, partition: int, count: int) -> None:
        """Count `count` more released records of this partition as committed."""
        self._uncommitted[partition] -= count
        self._awaits_commit = False

    def full(self, partition: int) -> bool:
        """Return whether no record of this partition may be released before a commit."""
        return self._uncommitted[partition] >= self.max_uncommitted

    def drop(self, partitions: Sequence[int]) -> None:
        """Forget all records of partitions that left or are read again from an earlier offset."""
        gone = set(partitions)
        self._queues = {
            name: queue
            for name, queue in self._queues.items()
            if queue[0][1].record.partition not in gone
        }
        self._heads = [e for e in self._heads if e[1].record.partition not in gone]
        heapq.heapify(self._heads)
        self._busy = {key for key in self._busy if key.partition not in gone}
        self._awaits_commit = False
        self.depth = sum(len(queue) for queue in self._queues.values())
        for partition in gone:
            self.depths.pop(partition, None)
            self._uncommitted.pop(partition, None)

    def _release(self, entry: tuple[int, Item]) -> Item:
        arrival, item = entry
        name = item.key or arrival
        queue = self._queues[name]
        queue.popleft()
        if not queue:
            del self._queues[name]
        if item.key is not None:
            self._busy.add(item.key)
        self._uncommitted[item.record.partition] += 1
        self.depth -= 1
        self.depths[item.record.partition] -= 1
        return item
