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

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from model.interface import Prediction, Predictor
from state.window import Conversation
from stream.answers.apply import Model, Question, answer, ask, drop
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


@dataclass(frozen=True, slots=True)
class Step:
    """One utterance put to one timeline: answered when its turn, if it has one, is predicted."""

    timeline: Timeline
    question: Question
    trusted: Poison | None  # in place of a prediction

    @property
    def predicts(self) -> bool:
        """False for a repeat, and where a reason is trusted."""
        return self.question.repeats is None and self.trusted is None

    def is_of(self, session: tuple[int, bool]) -> bool:
        """Return whether it is answered in this session: first position, and if truncated."""
        opened = self.question.opening.before.session
        return self.predicts and (opened.first_offset, opened.truncated) == session


class Timelines:
    """The timelines of one conversation on one partition; the first is that of the log's start.

    Each utterance is put to them by `open`, and `close` takes what the model answered: so those of
    many conversations are predicted side by side.
    """

    def __init__(self, model: Model, *, knows_all_ids: bool) -> None:
        """`knows_all_ids`: no utterance id of a worker's duplicate horizon is before the log."""
        self._model = model
        self._timelines = [Timeline()]
        self.knows_all_ids = knows_all_ids
        # An utterance had no outcome, and it is not known if its id is a repeat: what follows may
        # differ, until an idle gap.
        self.unsure = False
        self.last_ms = 0  # time of the last utterance

    def open(
        self,
        record: Record,
        utterance: Utterance,
        *,
        fields: bytes,
        starts: bool | None,
        dead_letter: Poison | None,
    ) -> list[Step]:
        """Put an utterance to every timeline; pass the steps to `close` before the next one.

        `fields` is the `fields_digest` of the utterance as it was decoded.
        `starts` is the `context.truncated` of a session that a worker began here, if one did;
        `dead_letter` the reason of the dead letter that answers the record, if one does.
        """
        self.last_ms = record.timestamp_ms
        first = self._timelines[0].conversation
        idle_ms = self._model.spec.recurrence.idle_s * 1000
        if first is not None and record.timestamp_ms - first.clock_ms > idle_ms:
            self.knows_all_ids, self.unsure = True, False  # it empties the duplicate horizon
        # A recompute cannot meet these faults, so the worker's reason counts.
        trusted = dead_letter if dead_letter and dead_letter.reason in TRUSTED else None

        def step(timeline: Timeline) -> Step:
            spec, known = self._model.spec, timeline.conversation
            cut = timeline.truncated
            question = ask(record, utterance, known, spec, truncated=cut, fields=fields)
            return Step(timeline, question, trusted)

        steps = [step(timeline) for timeline in self._timelines]
        if starts is not None and not any(s.is_of((record.offset, starts)) for s in steps):
            steps.append(step(Timeline(truncated=starts)))
        return steps

    def close(
        self,
        steps: Sequence[Step],
        predictions: Iterator[Prediction | Poison],
        shift_as_logged: Mapping[int, float] | None = None,
    ) -> list[Expected]:
        """Continue every timeline; return the answer that each expects.

        `predictions` has one for each step that `predicts`, in order.
        """
        expected: list[Expected] = []
        after: list[Timeline] = []
        for step in steps:
            found, state = concluded(
                step.question,
                next(predictions) if step.predicts else step.trusted,
                self._model,
                shift_as_logged,
            )
            expected.append(found)
            truncated = step.timeline.truncated and state is None
            after.append(Timeline(state, truncated=truncated))
        first, *others = after
        others = [other for other in others if other.identity() != first.identity()]
        self._timelines = [first, *others[-(MAX_TIMELINES - 1) :]]
        return expected

    def conversations(self) -> list[Conversation]:
        """Return the present state of each timeline that has one."""
        return [t.conversation for t in self._timelines if t.conversation is not None]


def applied(
    predictor: Predictor,
    model: Model,
    record: Record,
    utterance: Utterance,
    known: Conversation | None,
    *,
    truncated: bool = False,
    trusted: Poison | None = None,
) -> tuple[Expected, Conversation | None]:
    """Return the outcome an utterance must have after `known`, and the state that follows.

    `truncated` is the `context.truncated` of a session that starts here without `known`; `trusted`
    a dead letter that no recompute can meet, in place of a prediction.
    """
    question = ask(record, utterance, known, model.spec, truncated=truncated)
    found: Prediction | Poison | None = trusted
    if trusted is None and question.repeats is None:
        (found,) = predict(predictor, [question.turn(model.info)])
    return concluded(question, found, model)


def concluded(
    question: Question,
    prediction: Prediction | Poison | None,
    model: Model,
    shift_as_logged: Mapping[int, float] | None = None,
) -> tuple[Expected, Conversation | None]:
    """Return the outcome of a question and the state that follows; a repeat has no prediction.

    The alert rule takes the shift probability of `prediction`, or the one in `shift_as_logged` by
    `context.first_position` (a GPU's may differ in its last digits, and the rule is a threshold).
    """
    record = question.record
    if question.repeats is not None:
        dropped = drop(question)
        return Expected(record, "duplicate"), question.stored if dropped is None else dropped.after
    assert prediction is not None, "only a repeat has none"
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
