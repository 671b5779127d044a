"""Detect partitions whose states the store may have lost, and have them rebuilt.

Each committed offset has a note: the store that held all states then (`Store.identify`). A
partition with the note of another store, or whose log was cut unread, is suspect: it is not worked
on before `Rebuild` has compared its states with the log. One partition at a time, in slices.

`Settling` says what that means for readiness. An update replaces the next worker once this one is
ready: it must not go on while partitions stand still. That has a limit, so that an update ends
whatever happens, and begins with an assignment only, so that a Redis that lost its data does not
make every worker unready at once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from model.interface import Predictor
from state.store import Store
from stream.ports import LogReader
from stream.worker.partitions import Owned, Partitions
from stream.worker.rebuild import Rebuild

SLICE_S: Final = 0.05  # then other partitions have their turn
SAY_S: Final = 10.0  # checks of a partition that left states for later are logged this often

LIMIT_S: Final = 90.0  # not ready for checks: less than what EmotrackNoWorkerReady waits for
QUIET_S: Final = 5.0  # without a check: states of another model are met one after the other
SETTLED_S: Final = 30.0  # without a check: what is checked from now on has another reason

log = structlog.get_logger()


@dataclass(slots=True)
class Settling:
    """The checks that follow an assignment. Times are monotonic seconds."""

    _began: float | None = None  # None: settled
    _checked: float | None = None  # when a check was last seen

    def assigned(self, now: float) -> None:
        """Begin to watch, unless that is done already."""
        if self._began is None:
            self._began, self._checked = now, None

    def is_ready(self, now: float, *, checking: bool) -> bool:
        """Return false while what was assigned stands still, and for `LIMIT_S` at most."""
        if self._began is None:
            return True
        if checking:
            self._checked = now
        quiet_s = now - (self._began if self._checked is None else self._checked)
        if now - self._began >= LIMIT_S or quiet_s >= SETTLED_S:
            self._began = None
            return True
        return self._checked is None or quiet_s >= QUIET_S


@dataclass(slots=True)
class Checked:
    """The checks of one partition since the last line in the log."""

    said_at: float
    restored: Counter[str] = field(default_factory=Counter)
    records: int = 0
    seconds: float = 0.0


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
    _ended: dict[int, float] = field(default_factory=dict)  # by partition: its last check, seconds
    _unsaid: dict[int, Checked] = field(default_factory=dict)

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
            # The one that has waited longest: a change of the model makes each suspect again.
            checking = self.partitions.checking()
            if not checking:
                return None
            suspect = min(checking, key=lambda p: (self._ended.get(p, 0.0), p))
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
                owned.blind_until_ms, owned.at_once = rebuild.blind_until_ms, rebuild.at_once
                owned.cut_below = max(owned.cut_below, rebuild.cut_below)
                whole = not rebuild.left
                owned.trust(
                    self._known_store(), self.clock_s(), seen=rebuild.committed, whole=whole
                )
                self._ended[rebuild.partition] = time.monotonic()
                self._say(rebuild)
                return rebuild
        self._rebuild = rebuild
        return None

    def _say(self, rebuild: Rebuild) -> None:
        """Log what was found; of checks that left states for later, a line in `SAY_S`."""
        now = time.monotonic()
        unsaid = self._unsaid.setdefault(rebuild.partition, Checked(said_at=now - SAY_S))
        unsaid.restored += rebuild.restored
        unsaid.records += rebuild.records
        unsaid.seconds += rebuild.seconds
        if rebuild.left and now < unsaid.said_at + SAY_S:
            return
        log.info(
            "states checked against the log",
            partition=rebuild.partition,
            active=rebuild.active,
            restored=dict(unsaid.restored),
            left=rebuild.left,
            records=unsaid.records,
            seconds=round(unsaid.seconds, 2),
        )
        self._unsaid[rebuild.partition] = Checked(said_at=now)

    def _known_store(self) -> str:
        if self._note is None:
            self._note = self.store.identify()
        return self._note
