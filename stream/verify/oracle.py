"""The answers a worker should give: a pure recompute from the input log, one utterance at a time.

Shares with the worker what defines an answer (decoding, sessions, the model's step, the alert rule,
the events' bytes) and nothing that moves records about (worker, batcher, pipeline, stores). By the
serving law (docs/decisions.md) its bytes equal the worker's, whatever shared a batch there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from model.interface import Predictor
from state.window import Conversation
from stream.answers.apply import Model, answer, ask
from stream.answers.predict import predict
from stream.answers.shift_rule import ShiftRule, rule_of
from stream.events.cloudevents import Encoding
from stream.events.decode import Decoder
from stream.events.messages import Outcome, PredictionEvent, ShiftAlert, Utterance, encode
from stream.events.poison import Control, Poison
from stream.ports import Record


@dataclass(frozen=True, slots=True)
class Expected:
    """The one outcome of a record, and the events it should have caused."""

    record: Record
    outcome: Outcome
    prediction: PredictionEvent | None = None
    alert: ShiftAlert | None = None
    poison: Poison | None = None

    def prediction_bytes(self, encoding: Encoding = "json") -> bytes:
        """The prediction's value as it should stand in the topic."""
        assert self.prediction is not None, f"{self.outcome} has no prediction"
        return encode(self.prediction, encoding)

    def alert_bytes(self, encoding: Encoding = "json") -> bytes:
        """The alert's value as it should stand in the topic."""
        assert self.alert is not None, f"{self.outcome} raised no alert"
        return encode(self.alert, encoding)


class Oracle:
    """Answers records in log order; keeps every conversation in memory, so bound what you feed."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._decoder = Decoder(predictor.info.inputs, predictor.info.own_extractors)
        self._rule = rule_of(predictor.info)
        self._known: dict[tuple[int, str], Conversation] = {}

    def answers(self, records: Iterable[Record]) -> Iterator[Expected]:
        """Answer records one by one, each alone in its batch."""
        for record in records:
            yield self.answer(record)

    def answer(self, record: Record) -> Expected:
        """The outcome of one record, given all records of its partition before it."""
        message = self._decoder.decode(record).message
        if isinstance(message, Control):
            return Expected(record, "control")
        if isinstance(message, Poison):
            return Expected(record, "dead_lettered", poison=message)
        return self._answer_utterance(record, message)

    def _answer_utterance(self, record: Record, utterance: Utterance) -> Expected:
        at = (record.partition, utterance.conversation_id)
        expected, after = applied(
            self._predictor, self._rule, record, utterance, self._known.get(at)
        )
        if after is not None:
            self._known[at] = after
        return expected


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
    """Return the outcome an utterance must have after `known`, and the state it must leave.

    `truncated` is what a session that starts here without `known` must say. The alert rule is given
    the shift probability computed here, or the one in `shift_as_logged` by `context.first_position`
    (a GPU's may differ in its last digits, and the rule is a threshold).
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
