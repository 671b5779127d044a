"""Detect partitions whose states the store may have lost, and have them rebuilt.

Each committed offset has a note: the store that held all states then (`Store.identify`). A
partition with the note of another store, or whose log was cut unread, is suspect: it is not worked
on before `Rebuild` has compared its states with the log. One partition at a time, in slices.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from model.interface import Predictor
from state.store import Store
from stream.ports import LogReader
from stream.worker.partitions import Owned, Partitions
from stream.worker.rebuild import Rebuild

SLICE_S: Final = 0.05  # then other partitions have their turn


@dataclass(slots=True)
class Recovery:
    """The rebuilds of a worker, one at a time. Used by the worker's thread only."""

    partitions: Partitions
    reader: LogReader
    store: Store
    predictor: Predictor
    now_ms: Callable[[], int]
    clock_s: Callable[[], float]
    _note: str | None = None  # identity of the store; None: query it
    _rebuild: Rebuild | None = None
    _slices: Iterator[None] = field(default_factory=lambda: iter(()))

    @property
    def busy(self) -> bool:
        """True while a partition is being rebuilt."""
        return self._rebuild is not None

    def forget(self) -> None:
        """Abandon the rebuild and the store's identity: the store was replaced."""
        self._note, self._rebuild = None, None

    def drop(self, partitions: Sequence[int]) -> None:
        """Abandon the rebuild of partitions that were revoked or restarted."""
        if self._rebuild is not None and self._rebuild.partition in partitions:
            self._rebuild = None

    def judge(self, owned: Owned) -> None:
        """Trust a partition that was just claimed, or leave it suspect."""
        note = self._known_store()
        if owned.start.beginning and owned.committed < 0:
            owned.trust(note, self.clock_s(), seen=0)
        elif owned.note == note and not owned.start.gap:
            owned.trust(note, self.clock_s())

    def advance(self, topic_id: str) -> Rebuild | None:
        """Work on a suspect partition for a slice; return its rebuild when it is complete.

        Raises `Disputed` and the errors of store and log; the rebuild then starts again.
        """
        if self._rebuild is None:
            claimed = (p for p, o in self.partitions.items() if o.token is not None and o.suspect)
            if (suspect := min(claimed, default=None)) is None:
                return None
            self._rebuild = Rebuild(
                suspect,
                self.partitions[suspect],
                topic_id,
                reader=self.reader,
                store=self.store,
                predictor=self.predictor,
                now_ms=self.now_ms,
            )
            self._slices = self._rebuild.run()
        rebuild, self._rebuild = self._rebuild, None  # abandoned where a slice raises
        until = time.monotonic() + SLICE_S
        while time.monotonic() < until:
            if next(self._slices, rebuild) is rebuild:
                owned = self.partitions[rebuild.partition]
                owned.blind_until_ms = rebuild.blind_until_ms
                owned.cut_below = max(owned.cut_below, rebuild.cut_below)
                owned.trust(self._known_store(), self.clock_s(), seen=rebuild.committed)
                return rebuild
        self._rebuild = rebuild
        return None

    def _known_store(self) -> str:
        if self._note is None:
            self._note = self.store.identify()
        return self._note
