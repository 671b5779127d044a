"""What a worker may have known of a conversation: one line of states from the log's start, and one
from each place where a worker says that it began without what came before.

Pure. Every line goes on at every utterance; an answer says by `context.first_position` and
`context.truncated` which line it is of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from model.interface import Predictor
from state.window import Conversation, apply_nothing
from stream.answers.shift_rule import ShiftRule
from stream.events.messages import Utterance
from stream.events.poison import Poison, Reason
from stream.ports import Record
from stream.verify.oracle import Expected, applied

MAX_LINES: Final = 8  # of a conversation; each costs its window and a prediction an utterance
# What only the worker can have met: its device, and whether it had an encoder.
TRUSTED: Final = frozenset({Reason.DEVICE_EXHAUSTED, Reason.NO_TEXT_ENCODER})


@dataclass(frozen=True, slots=True)
class Line:
    """One line: what is known now, and what a session must say that starts it without."""

    known: Conversation | None = None
    truncated: bool = False


class Lines:
    """The lines of one conversation on one partition; the first is that of the log's start."""

    def __init__(self, *, log_is_whole: bool) -> None:
        """`log_is_whole`: the partition still holds its very first record."""
        self._lines = [Line()]
        self.hears_all = log_is_whole  # the ids heard before are all known

    def step(
        self,
        predictor: Predictor,
        rule: ShiftRule,
        record: Record,
        utterance: Utterance,
        *,
        starts: bool | None,
        buried: Poison | None,
        shift_as_logged: Mapping[int, float] | None = None,
    ) -> list[Expected]:
        """What each line says of an utterance; all lines go on.

        `starts` is the `context.truncated` of a session that a worker began here, if one did;
        `buried` the dead letter that answers the record, if one does.
        """
        idle_ms = predictor.spec.recurrence.idle_s * 1000
        known = self._lines[0].known
        if known is not None and record.timestamp_ms - known.clock_ms > idle_ms:
            self.hears_all = True  # whatever was heard before is forgotten here
        trusted = buried if buried is not None and buried.reason in TRUSTED else None
        stepped = [
            _stepped(line, predictor, rule, record, utterance, trusted, shift_as_logged)
            for line in self._lines
        ]
        if starts is not None and not any(_starts_here(e, starts) for e, _ in stepped):
            line = Line(truncated=starts)
            stepped.append(
                _stepped(line, predictor, rule, record, utterance, trusted, shift_as_logged)
            )
        self._lines = _merged([line for _, line in stepped])
        return [expected for expected, _ in stepped]

    def known(self) -> list[Conversation]:
        """What each line knows now."""
        return [line.known for line in self._lines if line.known is not None]


def _stepped(
    line: Line,
    predictor: Predictor,
    rule: ShiftRule,
    record: Record,
    utterance: Utterance,
    trusted: Poison | None,
    shift_as_logged: Mapping[int, float] | None,
) -> tuple[Expected, Line]:
    heard = line.known is not None and line.known.is_recent(utterance.utterance_id)
    if trusted is not None and not heard:
        change = apply_nothing(
            line.known, spec=predictor.spec, offset=record.offset, truncated=line.truncated
        )
        return Expected(record, "dead_lettered", poison=trusted), Line(change.after)
    expected, after = applied(
        predictor,
        rule,
        record,
        utterance,
        line.known,
        truncated=line.truncated,
        shift_as_logged=shift_as_logged,
    )
    return expected, Line(after, truncated=line.truncated and after is None)


def _starts_here(expected: Expected, truncated: bool) -> bool:
    if expected.prediction is None:
        return False
    context = expected.prediction.context
    return (context.first_position, context.truncated) == (expected.record.offset, truncated)


def _merged(lines: list[Line]) -> list[Line]:
    """Without lines that have come to know the same as the first; no more than `MAX_LINES`."""
    first = lines[0]
    others = [line for line in lines[1:] if not _same(first.known, line.known)]
    return [first, *others[-(MAX_LINES - 1) :]]


def _same(one: Conversation | None, other: Conversation | None) -> bool:
    """Whether two lines are in the same session, begun alike: then all else is equal too."""
    if one is None or other is None:
        return one is other
    return (one.session, one.offset, one.recent) == (other.session, other.offset, other.recent)
