"""The promises that `emotrack verify` checks, and its report: counts and violations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, NamedTuple, Self

from rich.console import Console
from rich.table import Table

from stream.ports import Record
from stream.verify.selection import EVERYTHING, WHOLE, Selection, Stretch


class Invariant(Enum):
    """The promises, each in one sentence; docs/inspect.md lists the comparisons."""

    I1 = "every committed record has exactly one outcome"
    I2 = "one effect: one prediction a position and model, repeats byte-equal under one id"
    I3 = "positions never go back within a conversation"
    I4 = "what Redis holds equals the recomputed state at its position"
    I5 = "every value equals the recomputed one"
    I6 = (
        "follows from I5: each answer is recomputed in other company than the worker's, one in a "
        "thousand (with --alone all) alone, so nothing that shared a batch with it changed it"
    )
    I7 = "rows, ids, outputs and lifetimes of a state are bounded"
    I8 = "shift alerts are the recomputed ones"

    def __str__(self) -> str:
        return self.name


CHECKED: Final = tuple(i for i in Invariant if i is not Invariant.I6)  # I6 follows from I5
STORED: Final = 100  # violations stored in full, of each invariant
PRINTED: Final = 5
COUNTS: Final = {
    "records": "records of the input log",
    "committed": "of them committed by the group",
    "predictions": "predictions in the log",
    "prediction_repeats": "of them repeats",
    "alerts": "shift alerts in the log",
    "alert_repeats": "of them repeats",
    "dead_letters": "dead letters in the log",
    "dead_letter_repeats": "of them repeats",
    "compared": "predictions that equal the recomputed ones",
    "duplicates": "records that repeat an utterance id",
    "controls": "records without a value",
    "open": "records not committed and not answered yet",
    "truncated": "predictions that say context.truncated",
    "moved": "predictions that say moved",
    "recomputed": "positions answered again after a loss, and saying so",
    "unencoded": "predictions of raw text and vectors by a worker without a sentence encoder",
    "other_model": "records answered by another model",
    "before_log": "answers and states whose session began before what was read: not judged",
    "context": "records before --since, recomputed as context of later ones",
    "before_since": "records before --since that are no context: not looked at",
    "unsampled": "records of conversations outside of the sample: not looked at",
    "unsampled_answers": "answers of conversations outside of the sample: not looked at",
    "other_answers": "answers to other partitions or earlier records: not looked at",
    "lost": "offsets whose records left the log from its midst (compaction, deletion)",
    "holed": "answers and states that differ and may have seen what left the log: not judged",
    "undecided": "records and answers that what retention or --since left out decides: not judged",
    "not_ours": "records of the output topics that are no events of these topics",
    "states": "states that equal the recomputed ones",
    "states_missing": "states not there (expired, or never written)",
    "states_foreign": "states of another model or other settings",
    "states_moved_on": "states that went on while we read",
    "states_undecided": "states that differ and may hold ids from before what was read: not judged",
}


class Position(NamedTuple):
    """The position of one record, of the input log or of an output topic."""

    topic: str
    partition: int
    offset: int

    @classmethod
    def of(cls, record: Record) -> Self:
        """Return the position of a record."""
        return cls(record.topic, record.partition, record.offset)

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}@{self.offset}"


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise: the invariant, the record's position, and the fault in a sentence."""

    invariant: Invariant
    says: str
    position: Position
    conversation: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the violation as plain data."""
        return {
            "invariant": self.invariant.name,
            **self.position._asdict(),
            "conversation": self.conversation,
            "says": self.says,
        }


@dataclass(slots=True)
class Report:
    """Counts and violations; of each invariant the first `STORED` violations in full."""

    counts: Counter[str] = field(default_factory=Counter)
    totals: Counter[Invariant] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    largest_difference: float = 0.0  # of a probability, where a tolerance was allowed
    states_read: bool = True  # false where states are in a worker's own memory
    selection: Selection = EVERYTHING
    left_out: list[str] = field(default_factory=list)  # sentences: what was not looked at

    @property
    def ok(self) -> bool:
        """True when no invariant is violated."""
        return not self.totals

    def count(self, what: str, n: int = 1) -> None:
        """Count one of `COUNTS`."""
        assert what in COUNTS, what
        self.counts[what] += n

    def violated(
        self, invariant: Invariant, text: str, position: Position, conversation: str | None
    ) -> None:
        """Add a violation."""
        self.totals[invariant] += 1
        if self.totals[invariant] <= STORED:
            self.violations.append(Violation(invariant, text, position, conversation))

    def as_json(self) -> dict[str, Any]:
        """Return plain data: the counts, then the number of violations, then the first ones."""
        return {
            **{name: self.counts[name] for name in COUNTS},
            "largest_difference": self.largest_difference,
            "states_read": self.states_read,
            "selection": self.selection.as_json(),
            "left_out": self.left_out,
            "violated": {invariant.name: self.totals[invariant] for invariant in CHECKED},
            "violations": [violation.as_json() for violation in self.violations],
        }


def print_report(report: Report, console: Console) -> None:
    """Print the counts that are not zero, one line an invariant, and the first violations."""
    counts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    counts.add_column(justify="right")
    for name, text in COUNTS.items():
        if report.counts[name] or name in ("records", "committed", "predictions", "compared"):
            counts.add_row(f"{report.counts[name]:,}", text)
    console.print(counts)
    if report.counts["predictions"] and not report.counts["committed"]:
        console.print("the group has committed nothing: is --group that of the workers?")
    if report.largest_difference:
        console.print(f"largest difference of a probability: {report.largest_difference:.2e}")
    if not report.states_read:
        console.print("I4, I7 not looked at: states lie in a worker's own memory")
    for sentence in report.left_out:
        console.print(f"not looked at: {sentence}", markup=False, soft_wrap=True)
    for invariant in CHECKED:
        n = report.totals[invariant]
        line = f"{invariant}  {'ok' if not n else f'{n:,} violations'}: {invariant.value}"
        console.print(line, markup=False, soft_wrap=True)
        for v in [v for v in report.violations if v.invariant is invariant][:PRINTED]:
            who = "" if v.conversation is None else f" (conversation {v.conversation!r})"
            console.print(f"    {v.position}{who}: {v.says}", markup=False, soft_wrap=True)
    console.print(f"{Invariant.I6}  {Invariant.I6.value}", soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Expectations:
    """Bounds of the input log and of stored states, and the differences that are excused."""

    committed: Mapping[int, int]  # next offset of the group, by partition
    lows: Mapping[int, int]  # first offset that is read, or still in each partition
    ends: Mapping[int, int]
    dead_letters: str = "dead-letters"  # name of the topic
    max_uncommitted: int = 512
    topic_id: str = ""
    tolerance: float | None = None  # of a probability; None: bytes must be equal
    allow_truncation: bool = True
    selection: Selection = EVERYTHING
    stretches: Mapping[int, Stretch] = field(default_factory=dict)  # with `since_ms`

    def stretch(self, partition: int) -> Stretch:
        """Return the stretch of a partition that is looked at."""
        return self.stretches.get(partition, WHOLE)

    def is_cut(self, partition: int) -> bool:
        """Return whether records of this partition are gone or left out."""
        left_out = not self.selection.has_partition(partition) or self.stretch(partition).is_cut
        return left_out or self.is_before_log(partition, 0)

    def is_committed(self, record: Record) -> bool:
        """Return whether the group had committed this input record when verifying began."""
        return record.offset < self.committed.get(record.partition, 0)

    def is_before_log(self, partition: int, offset: int) -> bool:
        """Return whether this offset of the input log is deleted, or before what is read."""
        return offset < self.lows.get(partition, 0)
