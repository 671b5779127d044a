"""What `emotrack verify` found: counts, and the violations of each invariant.

I6 (isolation) is not counted by itself: it follows from I5, see `stream.verify.check`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from rich.console import Console
from rich.table import Table

Invariant = Literal["I1", "I2", "I3", "I4", "I5", "I7", "I8"]
INVARIANTS: Final[dict[Invariant, str]] = {
    "I1": "every committed record has exactly one outcome",
    "I2": "one effect: one prediction a position and model, repeats byte-equal under one id",
    "I3": "positions never go back within a conversation",
    "I4": "what Redis holds equals the recomputed state at its position",
    "I5": "every value equals the recomputed one",
    "I7": "rows, ids, outputs and lifetimes of a state are bounded",
    "I8": "shift alerts are the recomputed ones",
}
FOLLOWS: Final = (
    "I6  follows from I5: each answer is recomputed alone in its batch, so nothing that shared a "
    "batch with it changed it"
)
KEPT: Final = 100  # violations told in full, of each invariant
SHOWN: Final = 5
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
    "recomputed": "positions answered again after a loss, and saying so",
    "unencoded": "predictions of raw text and vectors by a worker without a sentence encoder",
    "other_model": "records answered by another model",
    "before_log": "answers whose session began before the log does",
    "undecided": "records whose answer, or first hearing, retention has taken",
    "not_ours": "records of the output topics that are no events of these topics",
    "states": "states that equal the recomputed ones",
    "states_missing": "states not there (expired, or never written)",
    "states_foreign": "states of another model or other settings",
    "states_moved_on": "states that went on while we read",
}


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken promise: which, where in which log, and what is wrong in a sentence."""

    invariant: Invariant
    says: str
    topic: str
    partition: int
    offset: int
    conversation: str | None = None


@dataclass(slots=True)
class Report:
    """Counts and violations; of each invariant the first `KEPT` violations are told in full."""

    counts: Counter[str] = field(default_factory=Counter)
    totals: Counter[Invariant] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    largest_difference: float = 0.0  # of a probability, where a tolerance was allowed
    states_read: bool = True  # false where states lie in a worker's own memory

    @property
    def ok(self) -> bool:
        """Whether no invariant is violated."""
        return not self.totals

    def count(self, what: str, n: int = 1) -> None:
        """Count one of `COUNTS`."""
        assert what in COUNTS, what
        self.counts[what] += n

    def violated(self, violation: Violation) -> None:
        """Note a violation."""
        self.totals[violation.invariant] += 1
        if self.totals[violation.invariant] <= KEPT:
            self.violations.append(violation)

    def as_json(self) -> dict[str, Any]:
        """The report as plain data: the counts, then how many violations, then the first ones."""
        return {
            **{name: self.counts[name] for name in COUNTS},
            "largest_difference": self.largest_difference,
            "states_read": self.states_read,
            "violated": {name: self.totals[name] for name in INVARIANTS},
            "violations": [
                {
                    "invariant": v.invariant,
                    "topic": v.topic,
                    "partition": v.partition,
                    "offset": v.offset,
                    "conversation": v.conversation,
                    "says": v.says,
                }
                for v in self.violations
            ],
        }


def print_report(report: Report, console: Console) -> None:
    """Print the counts that are not zero, one line an invariant, and the first violations."""
    counts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    counts.add_column(justify="right")
    for name, says in COUNTS.items():
        if report.counts[name] or name in ("records", "committed", "predictions", "compared"):
            counts.add_row(f"{report.counts[name]:,}", says)
    console.print(counts)
    if report.counts["predictions"] and not report.counts["committed"]:
        console.print("the group has committed nothing: is --group that of the workers?")
    if report.largest_difference:
        console.print(f"largest difference of a probability: {report.largest_difference:.2e}")
    if not report.states_read:
        console.print("I4, I7 not looked at: states lie in a worker's own memory")
    for name, says in INVARIANTS.items():
        n = report.totals[name]
        line = f"{name}  {'ok' if not n else f'{n:,} violations'}: {says}"
        console.print(line, markup=False, soft_wrap=True)
        told = [v for v in report.violations if v.invariant == name]
        for v in told[:SHOWN]:
            who = "" if v.conversation is None else f" (conversation {v.conversation!r})"
            line = f"    {v.topic}-{v.partition}@{v.offset}{who}: {v.says}"
            console.print(line, markup=False, soft_wrap=True)
    console.print(FOLLOWS, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Terms:
    """What is known of the logs, and what is asked for."""

    committed: Mapping[int, int]  # next offset of the group, by partition
    lows: Mapping[int, int]  # the first offset each partition still holds
    ends: Mapping[int, int]
    dead_letters: str = "dead-letters"  # name of the topic
    max_uncommitted: int = 512
    topic_id: str = ""
    tolerance: float | None = None  # of a probability; None: bytes must be equal
    allow_truncation: bool = True
