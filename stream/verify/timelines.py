"""The states that a worker may have had of a conversation.

A worker that lost a state starts again without it, and its answers have `context.truncated`. So a
conversation has one timeline from the log's start, and one from each position where an answer shows
a truncated session. Every timeline continues at every utterance; `context.first_position` and
`context.truncated` of an answer identify its timeline. Pure.

`applied` is the oracle: a recompute of one utterance from its conversation. It shares with the
worker what defines an answer (sessions, the model's step, the alert rule, the events' bytes) and
nothing that moves records about (worker, batcher, pipeline, stores). By the serving law
(docs/architecture.md §3a) its bytes equal the worker's, whatever shared a batch there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from model.interface import Predictor
from state.window import Conversation
from stream.answers.apply import Model, answer, ask, drop
from stream.answers.predict import predict
from stream.events.messages import Outcome, PredictionEvent, ShiftAlert, Utterance
from stream.events.poison import Poison, Reason
from stream.ports import Record

MAX_TIMELINES: Final = 8  # of a conversation; each costs its window and a prediction an utterance
# Faults that only the worker can meet: of its device, or a missing encoder.
TRUSTED: Final = frozenset({Reason.DEVICE_EXHAUSTED, Reason.NO_TEXT_ENCODER})


@dataclass(frozen=True, slots=True)
class Expected:
    """The one outcome of a record, and the events it should have caused."""

    record: Record
    outcome: Outcome
    prediction: PredictionEvent | None = None
    alert: ShiftAlert | None = None
    poison: Poison | None = None


@dataclass(frozen=True, slots=True)
class Timeline:
    """One state of a conversation; `truncated` is that of a session that starts here."""

    conversation: Conversation | None = None
    truncated: bool = False

    def identity(self) -> object:
        """Return a value that is equal for equal timelines; None without a conversation."""
        c = self.conversation
        return c and (c.session, c.offset, c.recent, c.id_reused)


class Timelines:
    """The timelines of one conversation on one partition; the first is that of the log's start."""

    def __init__(self, predictor: Predictor, model: Model, *, knows_all_ids: bool) -> None:
        """`knows_all_ids`: no utterance id of a worker's duplicate horizon is before the log."""
        self._predictor, self._model = predictor, model
        self._timelines = [Timeline()]
        self.knows_all_ids = knows_all_ids
        self.last_ms = 0  # time of the last utterance

    def step(
        self,
        record: Record,
        utterance: Utterance,
        *,
        fields: bytes,
        starts: bool | None,
        dead_letter: Poison | None,
        shift_as_logged: Mapping[int, float] | None = None,
    ) -> list[Expected]:
        """Apply an utterance to every timeline; return the answer that each expects.

        `fields` is the `fields_digest` of the utterance as it was decoded.
        `starts` is the `context.truncated` of a session that a worker began here, if one did;
        `dead_letter` the reason of the dead letter that answers the record, if one does.
        """
        self.last_ms = record.timestamp_ms
        first = self._timelines[0].conversation
        idle_ms = self._predictor.spec.recurrence.idle_s * 1000
        if first is not None and record.timestamp_ms - first.clock_ms > idle_ms:
            self.knows_all_ids = True  # an idle gap empties the duplicate horizon
        # A recompute cannot meet these faults, so the worker's reason counts.
        trusted = dead_letter if dead_letter and dead_letter.reason in TRUSTED else None
        step = partial(self._step, record, utterance, fields, trusted, shift_as_logged)
        stepped = [step(timeline) for timeline in self._timelines]
        here = (record.offset, starts)
        if starts is not None and not any(session_of(e) == here for e, _ in stepped):
            stepped.append(step(Timeline(truncated=starts)))
        first_timeline, *others = [timeline for _, timeline in stepped]
        others = [other for other in others if other.identity() != first_timeline.identity()]
        self._timelines = [first_timeline, *others[-(MAX_TIMELINES - 1) :]]
        return [expected for expected, _ in stepped]

    def conversations(self) -> list[Conversation]:
        """Return the present state of each timeline that has one."""
        return [t.conversation for t in self._timelines if t.conversation is not None]

    def _step(
        self,
        record: Record,
        utterance: Utterance,
        fields: bytes,
        trusted: Poison | None,
        shift_as_logged: Mapping[int, float] | None,
        timeline: Timeline,
    ) -> tuple[Expected, Timeline]:
        expected, after = applied(
            self._predictor,
            self._model,
            record,
            utterance,
            timeline.conversation,
            fields=fields,
            truncated=timeline.truncated,
            trusted=trusted,
            shift_as_logged=shift_as_logged,
        )
        return expected, Timeline(after, truncated=timeline.truncated and after is None)


def applied(
    predictor: Predictor,
    model: Model,
    record: Record,
    utterance: Utterance,
    known: Conversation | None,
    *,
    fields: bytes | None = None,
    truncated: bool = False,
    trusted: Poison | None = None,
    shift_as_logged: Mapping[int, float] | None = None,
) -> tuple[Expected, Conversation | None]:
    """Return the outcome an utterance must have after `known`, and the state that follows.

    `fields` is as for `ask`; `truncated` the `context.truncated` of a session that starts here
    without `known`; `trusted` a dead letter that no recompute can meet, in place of a prediction.
    The alert rule takes the shift probability computed here, or the one in `shift_as_logged` by
    `context.first_position` (a GPU's may differ in its last digits, and the rule is a threshold).
    """
    question = ask(record, utterance, known, model.spec, truncated=truncated, fields=fields)
    if question.repeats is not None:
        dropped = drop(question)
        return Expected(record, "duplicate"), known if dropped is None else dropped.after
    (prediction,) = [trusted] if trusted else predict(predictor, [question.turn(model.info)])
    logged = (shift_as_logged or {}).get(question.opening.before.session.first_offset)
    found = answer(question, prediction, model, logged_shift=logged)
    expected = Expected(record, found.outcome, found.event, found.alert, found.poison)
    return expected, found.change.after


def session_of(expected: Expected) -> tuple[int, bool] | None:
    """Return the session of an expected prediction: its first position, and if it is truncated."""
    if expected.prediction is None:
        return None
    context = expected.prediction.context
    return context.first_position, context.truncated
