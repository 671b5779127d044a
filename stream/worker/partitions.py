"""The partitions a worker owns, and the watermark of each."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from state.window import StateKey
from stream.ports import NO_TIMESTAMP, Hole, Outgoing, Start
from stream.worker.pipeline import Doubt, Lease


@dataclass(slots=True)
class Watermark:
    """The records of a partition, admitted in log order and finished in any order.

    Only the finished records below the first unfinished one may be committed. Offsets may have
    gaps (compaction, transactions).
    """

    _open: OrderedDict[int, str | None] = field(default_factory=OrderedDict)
    _passed: deque[tuple[int, str]] = field(default_factory=deque)
    _read: deque[int] = field(default_factory=deque)  # admitted, not known to be committed

    @property
    def waiting(self) -> int:
        """The number of records read that may not be committed yet."""
        return len(self._open)

    @property
    def uncommitted(self) -> int:
        """The number of records read that are not known to be committed."""
        return len(self._open) + len(self._passed)

    def admit(self, offset: int) -> None:
        """Add a record that was read."""
        self._open[offset] = None
        self._read.append(offset)

    def finish(self, offset: int, outcome: str) -> None:
        """Give a record its outcome: all its outputs are acknowledged.

        A record that was never admitted (its partition was dropped meanwhile) is ignored.
        """
        if offset not in self._open:
            return
        self._open[offset] = outcome
        while self._open:
            first = next(iter(self._open))
            done = self._open[first]
            if done is None:
                return
            del self._open[first]
            self._passed.append((first, done))

    def committable(self) -> int | None:
        """Return the next offset to commit; None while there is nothing new."""
        return self._passed[-1][0] + 1 if self._passed else None

    def read_below(self, committed: int) -> int:
        """Count the records read below `committed`, once each: `confirm` must account for them."""
        count = 0
        while self._read and self._read[0] < committed:
            self._read.popleft()
            count += 1
        return count

    def confirm(self, committed: int) -> list[str]:
        """Return the outcomes that are final now that the broker has stored `committed`."""
        outcomes: list[str] = []
        while self._passed and self._passed[0][0] < committed:
            outcomes.append(self._passed.popleft()[1])
        return outcomes


@dataclass(slots=True)
class Owned:
    """One assigned partition."""

    start: Start
    token: int | None = None  # None: not claimed yet, nothing of it may be worked on
    disputed: bool = False  # a fence or the broker refused us: commit before claiming
    watermark: Watermark = field(default_factory=Watermark)
    committed: int = -1
    note: str = ""  # the store that held all states at the committed offset
    doubted: dict[StateKey, Doubt] = field(default_factory=dict)
    suspect: bool = True  # its states may be gone: not worked on before they are rebuilt
    proven_at: float | None = None  # monotonic seconds: all active states were seen then
    seen_below: int = -1  # ... of the records below this offset
    blind_until_ms: int = NO_TIMESTAMP
    cut_below: int = 0  # records below this offset left the log before they were read
    at_once: int = 1  # states of another model that the next check computes together
    next: int = 0  # offset that is read next if the log has no hole there
    unsent: dict[int, list[Outgoing]] = field(default_factory=dict)  # transactions: by offset

    def __post_init__(self) -> None:
        self.cut_below = self.start.low if self.start.gap else 0
        self.next = self.resume_at

    @property
    def resume_at(self) -> int:
        """The offset to read from after what is in flight is dropped."""
        return max(self.committed, self.start.low)

    def note_at(self, now_ms: int) -> str:
        """Return the note to commit: none while contexts may lack records.

        The next owner then looks into the log, and finds that, too.
        """
        return "" if now_ms < self.blind_until_ms else self.note

    def lose(self, hole: Hole, idle_ms: int) -> None:
        """Note that the records of a hole left the log before they were read."""
        self.cut_below = max(self.cut_below, hole.end)
        self.blind_until_ms = max(self.blind_until_ms, hole.until_ms + idle_ms)

    def trust(self, note: str, now: float, *, seen: int | None = None, whole: bool = True) -> None:
        """Trust the states of the store that `note` names; those below `seen` were checked.

        Unless `whole`, states of another model that are active were left, to be computed later.
        """
        self.suspect, self.note = False, note
        self.doubted = {}
        if seen is not None:
            self.proven_at = now
            self.seen_below = seen if whole else self.seen_below


class Partitions(dict[int, Owned]):
    """The assigned partitions of one worker, by number."""

    def unworkable(self) -> set[int]:
        """Return the partitions that may not be worked on yet."""
        return {p for p, owned in self.items() if owned.token is None or owned.suspect}

    def checking(self) -> set[int]:
        """Return the partitions that stand still while their states are checked or rebuilt.

        Those that wait for their turn in that are among them.
        """
        return {p for p, owned in self.items() if owned.token is not None and owned.suspect}

    def unanswered(self, unread: Mapping[int, int], *, seen_when_committed: bool) -> dict[int, int]:
        """Return the records without an answer: `unread`, and those read and not done yet.

        `seen_when_committed`: in transactions, nobody sees an answer before the commit.
        """
        marks = {p: self[p].watermark for p in unread if p in self}
        return {
            p: unread[p] + (mark.uncommitted if seen_when_committed else mark.waiting)
            for p, mark in marks.items()
        }

    def unsent_below(self, offsets: Mapping[int, int]) -> list[Outgoing]:
        """Return the answers to records below these offsets, in log order by partition."""
        return [
            outgoing
            for partition, end in offsets.items()
            for offset, answers in sorted(self[partition].unsent.items())
            if offset < end
            for outgoing in answers
        ]

    def leases(self, now: float, idle_s: float) -> Mapping[int, Lease]:
        """Return the terms of a step for each partition that may be worked on."""
        leases: dict[int, Lease] = {}
        for partition, owned in self.items():
            if owned.token is None or owned.suspect:
                continue
            # Keys live for 2 x idle_s: after that, a missing one may be one we wrote ourselves.
            young = owned.proven_at is not None and now - owned.proven_at < 2 * idle_s
            leases[partition] = Lease(
                owned.token,
                owned.committed,
                young,
                owned.seen_below,
                cut_below=owned.cut_below,
                blind_until_ms=owned.blind_until_ms,
            )
        return leases

    def committable(self, partitions: Iterable[int] | None = None) -> dict[int, int]:
        """Return the next offsets to commit, of the partitions that have new ones."""
        wanted = self if partitions is None else [p for p in partitions if p in self]
        offsets = {p: self[p].watermark.committable() for p in wanted}
        return {p: offset for p, offset in offsets.items() if offset is not None}
