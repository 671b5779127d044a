"""The answer a worker should give: a pure recompute of one utterance from its conversation.

Shares with the worker what defines an answer (sessions, the model's step, the alert rule,
the events' bytes) and nothing that moves records about (worker, batcher, pipeline, stores). By the
serving law (docs/architecture.md §3a) its bytes equal the worker's, whatever shared a batch there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from model.interface import Predictor
from state.window import Conversation
from stream.answers.apply import Model, answer, ask
from stream.answers.predict import predict
from stream.answers.shift_rule import ShiftRule
from stream.events.messages import Outcome, PredictionEvent, ShiftAlert, Utterance
from stream.events.poison import Poison
from stream.ports import Record


@dataclass(frozen=True, slots=True)
class Expected:
    """The one outcome of a record, and the events it should have caused."""

    record: Record
    outcome: Outcome
    prediction: PredictionEvent | None = None
    alert: ShiftAlert | None = None
    poison: Poison | None = None


def applied(
    predictor: Predictor,
    rule: ShiftRule,
    record: Record,
    utterance: Utterance,
    known: Conversation | None,
    *,
    truncated: bool = False,
    shift_as_logged: Mapping[int, float] | None = None,
) -> tuple[Expected, Conversation | None]:
    """Return the outcome an utterance must have after `known`, and the state that follows.

    `truncated` is the `context.truncated` of a session that starts here without `known`. The alert
    rule takes the shift probability computed here, or the one in `shift_as_logged` by
    `context.first_position` (a GPU's may differ in its last digits, and the rule is a threshold).
    """
    model = Model(predictor.info, predictor.spec, rule)
    question = ask(record, utterance, known, model.spec, truncated=truncated)
    if question.is_duplicate:
        return Expected(record, "duplicate"), known
    (prediction,) = predict(predictor, [question.turn(model.info)])
    logged = (shift_as_logged or {}).get(question.opening.before.session.first_offset)
    found = answer(question, prediction, model, logged_shift=logged)
    expected = Expected(record, found.outcome, found.event, found.alert, found.poison)
    return expected, found.change.after
