"""What the worker should have said: a pure recompute from the input log, one utterance at a time.

Shares with the worker what defines an answer (decoding, sessions, the model's step, the alert rule,
the events' bytes) and nothing that moves records about (worker, batcher, pipeline, stores). By the
serving law (docs/decisions.md) its bytes equal the worker's, whatever shared a batch there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from model.predictor import ModelInfo, Predictor
from state.window import Conversation, Opening, apply, open_at
from stream.alerts import ShiftRule, decide
from stream.answers import highest_seq, prediction_event, rule_of, shift_alert
from stream.cloudevents import Encoding
from stream.messages import (
    Outcome,
    PredictionEvent,
    ShiftAlert,
    Utterance,
    decode,
    encode,
)
from stream.offenders import as_turn
from stream.poison import Control, Poison
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
        opening = open_at(
            self._known.get(at),
            spec=self._predictor.spec,
            timestamp_ms=record.timestamp_ms,
            offset=record.offset,
            truncated=False,
        )
        if opening.before.is_recent(utterance.utterance_id):
            return Expected(record, "duplicate")
        expected, after = self._predict(record, utterance, opening)
        self._known[at] = after
        return expected

    def _predict(
        self, record: Record, utterance: Utterance, opening: Opening
    ) -> tuple[Expected, Conversation]:
        turn = as_turn(utterance, opening.before.window, self._info.inputs)
        (prediction,) = self._predictor.predict([turn])
        event = prediction_event(utterance, prediction, opening, self._info, record)
        moved = None if event.shift is None else event.shift.probability
        alert_state, fired = decide(self._rule, opening.before.alert, utterance.speaker_id, moved)
        change = apply(
            opening,
            prediction.applied,
            recurrence=self._predictor.spec.recurrence,
            utterance_id=utterance.utterance_id,
            speaker_id=utterance.speaker_id,
            offset=record.offset,
            timestamp_ms=record.timestamp_ms,
            end_of_conversation=utterance.end_of_conversation,
            seq=highest_seq(utterance.seq, opening.before.session.last_seq),
            alert=alert_state,
        )
        expected = Expected(
            record,
            "abstained" if event.abstained else "predicted",
            event,
            shift_alert(event, self._rule) if fired else None,
        )
        return expected, change.after
