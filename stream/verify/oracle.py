"""What the worker should have said: a pure recompute from the input log, one utterance at a time.

Shares with the worker what defines an answer (decoding, sessions, the model's step, the alert rule,
the events' bytes) and nothing that moves records about (worker, batcher, pipeline, stores). By the
serving law (docs/decisions.md) its bytes equal the worker's, whatever shared a batch there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from model.interface import ModelInfo, Predictor
from state.window import Conversation, apply, apply_nothing, open_at
from stream.answers.build_events import highest_seq, prediction_event, rule_of, shift_alert
from stream.answers.predict import as_turn, predict
from stream.answers.shift_rule import ShiftRule, decide
from stream.events.cloudevents import Encoding
from stream.events.decode import decode
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
        self._info: ModelInfo = predictor.info
        self._rule: ShiftRule = rule_of(predictor.info)
        self._known: dict[tuple[int, str], Conversation] = {}

    def answers(self, records: Iterable[Record]) -> Iterator[Expected]:
        """Answer records one by one, each alone in its batch."""
        for record in records:
            yield self.answer(record)

    def answer(self, record: Record) -> Expected:
        """The outcome of one record, given all records of its partition before it."""
        message = decode(
            record.value,
            record.key,
            record.headers,
            topic=record.topic,
            inputs=self._info.inputs,
            only=self._info.own_extractors,
        )
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
    """What an utterance must come to after `known`, and what is known afterwards.

    `truncated` is what a session that starts here without `known` must say. The alert rule hears
    the shift probability computed here, or the one in `shift_as_logged` by `context.first_position`
    (a GPU's may differ in its last digits, and the rule is a threshold).
    """
    spec, info = predictor.spec, predictor.info
    opening = open_at(
        known,
        spec=spec,
        timestamp_ms=record.timestamp_ms,
        offset=record.offset,
        truncated=truncated,
    )
    before = opening.before
    if before.is_recent(utterance.utterance_id):
        return Expected(record, "duplicate"), known
    (prediction,) = predict(predictor, [as_turn(utterance, before.window, info.inputs)])
    if isinstance(prediction, Poison):
        change = apply_nothing(known, spec=spec, offset=record.offset, truncated=truncated)
        return Expected(record, "dead_lettered", poison=prediction), change.after
    event = prediction_event(utterance, prediction, opening, info, record)
    moved = None if event.shift is None else event.shift.probability
    if moved is not None and shift_as_logged:
        moved = shift_as_logged.get(event.context.first_position, moved)
    alert_state, fired = decide(rule, before.alert, utterance.speaker_id, moved)
    change = apply(
        opening,
        prediction.applied,
        recurrence=spec.recurrence,
        utterance_id=utterance.utterance_id,
        speaker_id=utterance.speaker_id,
        offset=record.offset,
        timestamp_ms=record.timestamp_ms,
        end_of_conversation=utterance.end_of_conversation,
        seq=highest_seq(utterance.seq, before.session.last_seq),
        alert=alert_state,
    )
    outcome: Outcome = "abstained" if event.abstained else "predicted"
    alert = shift_alert(event, rule) if fired else None
    return Expected(record, outcome, event, alert), change.after
