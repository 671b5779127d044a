"""The partitions a worker owns, and the watermark of each: what may be committed."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from state.window import StateKey
from stream.ports import NO_TIMESTAMP, Outgoing, Start
from stream.worker.pipeline import Doubt, Lease


@dataclass(slots=True)
class Watermark:
    """Records are admitted in log order and finished in any order.

    Only the finished ones below the first unfinished one may be committed. Offsets may have gaps
    (compaction, transactions).
    """

    _open: OrderedDict[int, str | None] = field(default_factory=OrderedDict)
    _passed: deque[tuple[int, str]] = field(default_factory=deque)
    _read: deque[int] = field(default_factory=deque)  # admitted, not known to be committed

    @property
    def waiting(self) -> int:
        """Records read that may not be committed yet."""
        return len(self._open)

    def admit(self, offset: int) -> None:
        """This record was read."""
        self._open[offset] = None
        self._read.append(offset)

    def finish(self, offset: int, outcome: str) -> None:
        """This record has its outcome, and all it sends is acknowledged.

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
        """The next offset to commit; None while there is nothing new."""
        return self._passed[-1][0] + 1 if self._passed else None

    def read_below(self, committed: int) -> int:
        """Count the records read below `committed`, once each: what `confirm` must account for."""
        count = 0
        while self._read and self._read[0] < committed:
            self._read.popleft()
            count += 1
        return count

    def confirm(self, committed: int) -> list[str]:
        """The broker holds `committed`: return the outcomes that are final by it."""
        outcomes: list[str] = []
        while self._passed and self._passed[0][0] < committed:
            outcomes.append(self._passed.popleft()[1])
        return outcomes


@dataclass(slots=True)
class Owned:
    """One assigned partition."""

    start: Start
    token: int | None = None  # None: not claimed yet, nothing of it may be worked on
    disputed: bool = False  # the broker or a fence said it is not ours: ask before claiming
    watermark: Watermark = field(default_factory=Watermark)
    committed: int = -1
    note: str = ""  # the store that held all states at the committed offset
    doubted: dict[StateKey, Doubt] = field(default_factory=dict)
    suspect: bool = True  # its states may be gone: not worked on before they are rebuilt
    proven_at: float | None = None  # monotonic seconds: all that is active was seen then
    seen_below: int = -1  # ... of the records below this offset
    blind_until_ms: int = NO_TIMESTAMP
    unsent: dict[int, list[Outgoing]] = field(default_factory=dict)  # transactions: by offset

    def sent_below(self, committed: int) -> None:
        """What lies below was sent in the transaction that committed it."""
        self.unsent = {offset: sent for offset, sent in self.unsent.items() if offset >= committed}

    @property
    def resume_at(self) -> int:
        """Where reading starts again when what is in flight is dropped."""
        return max(self.committed, self.start.low)

    @property
    def workable(self) -> bool:
        return self.token is not None and not self.suspect

    @property
    def cut_below(self) -> int:
        """Records below this offset left the log unread; 0 where none did."""
        return self.start.low if self.start.gap else 0

    def trust(self, note: str, now: float, *, seen: int | None = None) -> None:
        """The store `note` names holds all states; `seen`: as read from the log below there."""
        self.suspect, self.note = False, note
        self.doubted = {}
        if seen is not None:
            self.proven_at, self.seen_below = now, seen

    def lease(self, now: float, idle_s: float) -> Lease:
        """What a step may do now. Raises `ValueError` while it may do nothing."""
        if self.token is None or self.suspect:
            raise ValueError("a partition must be claimed and whole before it is worked on")
        # Keys live for 2 x idle_s: after that, a missing one may be one we wrote ourselves.
        young = self.proven_at is not None and now - self.proven_at < 2 * idle_s
        return Lease(
            self.token,
            self.committed,
            young,
            self.seen_below,
            self.cut_below,
            self.blind_until_ms,
        )


class Partitions:
    """The assigned partitions of one worker."""

    def __init__(self) -> None:
        self._owned: dict[int, Owned] = {}

    def __contains__(self, partition: object) -> bool:
        return partition in self._owned

    def __getitem__(self, partition: int) -> Owned:
        return self._owned[partition]

    def __iter__(self) -> Iterator[int]:
        return iter(self._owned)

    def __len__(self) -> int:
        return len(self._owned)

    def add(self, partition: int, start: Start) -> None:
        """A partition was assigned."""
        self._owned[partition] = Owned(start, committed=start.committed, note=start.note)

    def remove(self, partitions: Iterable[int]) -> None:
        """Partitions have left."""
        for partition in partitions:
            self._owned.pop(partition, None)

    def restart(self, partition: int, *, disputed: bool) -> int:
        """Forget what is in flight and the claim; return the offset to read on from."""
        owned = self._owned[partition]
        owned.watermark, owned.token, owned.unsent = Watermark(), None, {}
        owned.disputed |= disputed
        return owned.resume_at

    def unclaimed(self) -> list[int]:
        """Partitions without a fence token."""
        return sorted(p for p, owned in self._owned.items() if owned.token is None)

    def suspect(self) -> list[int]:
        """Claimed partitions whose states must be rebuilt first."""
        owned = self._owned.items()
        return sorted(p for p, one in owned if one.token is not None and one.suspect)

    def unworkable(self) -> set[int]:
        """Partitions that may not be worked on yet."""
        return {p for p, owned in self._owned.items() if not owned.workable}

    def unsent_below(self, offsets: Mapping[int, int]) -> list[Outgoing]:
        """The answers that belong to what lies below these offsets, in log order by partition."""
        return [
            outgoing
            for partition, end in offsets.items()
            for offset, sent in sorted(self._owned[partition].unsent.items())
            if offset < end
            for outgoing in sent
        ]

    def notes(self, partitions: Iterable[int]) -> dict[int, str]:
        """What is to be committed beside their offsets."""
        return {p: self._owned[p].note for p in partitions}

    def leases(self, now: float, idle_s: float) -> Mapping[int, Lease]:
        """What a step may do, for each partition that may be worked on."""
        workable = {p: o for p, o in self._owned.items() if o.workable}
        return {p: owned.lease(now, idle_s) for p, owned in workable.items()}

    def committable(self, partitions: Iterable[int] | None = None) -> dict[int, int]:
        """Next offsets to commit, where there is something new."""
        wanted = self._owned if partitions is None else [p for p in partitions if p in self._owned]
        offsets: dict[int, int] = {}
        for partition in wanted:
            offset = self._owned[partition].watermark.committable()
            if offset is not None:
                offsets[partition] = offset
        return offsets
