"""Apply one prediction: the one place where it becomes an event, an alert and a change of state.

`ask` opens the conversation of an utterance, the model predicts, `answer` derives the rest.
Pure: worker, rebuild and verifier call these, so that equal arguments give them equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from model.interface import ModelInfo, Prediction, Predictor, Turn
from state.window import (
    Change,
    Conversation,
    Opening,
    StateSpec,
    apply,
    apply_nothing,
    apply_reused,
    open_at,
)
from stream.answers.same_utterance import Repeats, fields_digest, repeats
from stream.answers.shift_rule import ShiftRule, decide, largest_move, rule_of
from stream.events.decode import tensors
from stream.events.messages import (
    ID_REUSED,
    MOVED,
    SEQ_DISORDER,
    SEQ_GAP,
    Abstention,
    Context,
    InputRef,
    ModelRef,
    Outcome,
    PredictionEvent,
    Shift,
    ShiftAlert,
    Utterance,
    alert_id,
    flags_of,
    prediction_id,
    words_of,
)
from stream.events.poison import Poison
from stream.ports import Record

DECIMALS: Final = 6  # of a probability on the wire: below what calibration can mean


class Model(Struct, frozen=True):
    """A loaded model's identity, state and alert rule: what turns its predictions to answers."""

    info: ModelInfo
    spec: StateSpec
    rule: ShiftRule

    @staticmethod
    def of(predictor: Predictor) -> Model:
        """Return the terms of a loaded model, with the built-in alert rule."""
        info = predictor.info
        return Model(info, predictor.spec, rule_of(info))


class Question(Struct, frozen=True):
    """One utterance and the conversation before it."""

    record: Record
    utterance: Utterance
    stored: Conversation | None  # None: there is no state
    truncated: bool  # of a session that starts here without `stored`
    opening: Opening
    fields: bytes  # `fields_digest` of the utterance
    repeats: Repeats | None  # None: its id is new within the horizon, else it gets no answer
    moved: bool  # its conversation is on several partitions

    def turn(self, info: ModelInfo) -> Turn:
        """Return the turn to predict: known vectors, and text that is more than spaces."""
        utterance = self.utterance
        return Turn(
            window=self.opening.before.window,
            speaker_id=utterance.speaker_id,
            features=tensors(utterance, info.inputs),
            persona=None if utterance.persona is None else tuple(utterance.persona),
            text=words_of(utterance),
            language=utterance.language,
        )


class Answer(Struct, frozen=True):
    """The outcome of one question, the events it causes, and the state it leaves."""

    outcome: Outcome
    change: Change
    event: PredictionEvent | None = None  # None where dead-lettered
    alert: ShiftAlert | None = None
    poison: Poison | None = None  # why it is dead-lettered


def ask(
    record: Record,
    utterance: Utterance,
    stored: Conversation | None,
    spec: StateSpec,
    *,
    truncated: bool,
    moved: bool = False,
    fields: bytes | None = None,
) -> Question:
    """Open the conversation at an utterance, see `open_at`; `drop` it where it `repeats` an id.

    `fields` is the `fields_digest` of the utterance as it was decoded, None to compute it.
    """
    opening = open_at(
        stored,
        spec=spec,
        timestamp_ms=record.timestamp_ms,
        offset=record.offset,
        truncated=truncated,
    )
    digest = fields_digest(utterance) if fields is None else fields
    applied = opening.before.fields_of(utterance.utterance_id)
    known = None if applied is None else repeats(applied, digest)
    return Question(record, utterance, stored, truncated, opening, digest, known, moved)


def drop(question: Question) -> Change | None:
    """Return what a question that `repeats` an id changes; None for nothing.

    Ids are the identity: another utterance under a known id is not answered either, but it moves
    the position, so that the conversation's next answer says `id_reused`, also in a recompute.
    """
    if question.repeats != "other_utterance":
        return None
    assert question.stored is not None, "its id is in the horizon"
    return apply_reused(question.stored, offset=question.record.offset)


def answer(
    question: Question,
    prediction: Prediction | Poison,
    model: Model,
    *,
    logged_shift: float | None = None,
) -> Answer:
    """Return the one outcome of a question that repeats no id.

    A `Poison` is a dead letter found late: it moves the position, and nothing else changes.
    For `logged_shift` see `change_of`.
    """
    change, fires = change_of(question, prediction, model, logged_shift=logged_shift)
    if isinstance(prediction, Poison):
        return Answer("dead_lettered", change, poison=prediction)
    event = prediction_event(question, prediction, model.info)
    alert = shift_alert(event, model.rule) if fires else None
    return Answer("abstained" if event.abstained else "predicted", change, event, alert)


def change_of(
    question: Question,
    prediction: Prediction | Poison,
    model: Model,
    *,
    logged_shift: float | None = None,
) -> tuple[Change, bool]:
    """Return the change of state alone, and whether the alert rule fires: all that a rebuild needs.

    `logged_shift`, where there is one, replaces the shift probability in the rule: it is compared
    with a threshold, and a GPU's last digits differ.
    """
    record, utterance, opening = question.record, question.utterance, question.opening
    if isinstance(prediction, Poison):
        change = apply_nothing(
            question.stored,
            spec=model.spec,
            offset=record.offset,
            truncated=question.truncated,
        )
        return change, False
    before = opening.before
    moved = moved_of(question, prediction)
    if moved is not None and logged_shift is not None:
        moved = logged_shift
    doubted = prediction.doubt is not None
    rule_state, fires = decide(
        model.rule, before.alert, utterance.speaker_id, moved, doubted=doubted
    )
    numbers = [seq for seq in (utterance.seq, before.session.last_seq) if seq is not None]
    change = apply(
        opening,
        prediction.applied,
        recurrence=model.spec.recurrence,
        utterance_id=utterance.utterance_id,
        fields=question.fields,
        speaker_id=utterance.speaker_id,
        offset=record.offset,
        timestamp_ms=record.timestamp_ms,
        end_of_conversation=utterance.end_of_conversation,
        seq=max(numbers, default=None),
        alert=rule_state,
    )
    return change, fires


def prediction_event(
    question: Question, prediction: Prediction, info: ModelInfo
) -> PredictionEvent:
    """Return the prediction event to publish."""
    utterance, record = question.utterance, question.record
    window, session = question.opening.before.window, question.opening.before.session
    position = InputRef(record.topic, record.partition, record.offset)
    best = max(range(len(info.labels)), key=prediction.probabilities.__getitem__)
    confidence = prediction.probabilities[best]
    reason = abstention(prediction, confidence, info)
    return PredictionEvent(
        conversation_id=utterance.conversation_id,
        utterance_id=utterance.utterance_id,
        speaker_id=utterance.speaker_id,
        prediction_id=prediction_id(
            conversation_id=utterance.conversation_id,
            utterance_id=utterance.utterance_id,
            input=position,
            first_position=session.first_offset,
            revision=0,
            model_digest=info.digest,
        ),
        emotion=info.labels[best],
        probabilities={
            label: round(p, DECIMALS)
            for label, p in zip(info.labels, prediction.probabilities, strict=True)
        },
        confidence=round(confidence, DECIMALS),
        sentiment=info.sentiment[info.labels[best]],
        shift=shift_of(question, prediction, info.labels),
        modalities_used=list(prediction.modalities_used),
        context=Context(
            utterances=len(window.rows),
            oldest_utterance_id=window.row_utterances[0] if window.row_utterances else None,
            first_position=session.first_offset,
            truncated=session.truncated,
        ),
        model=ModelRef(info.name, info.version, info.digest, info.calibration),
        input=position,
        abstained=reason is not None,
        reason=reason,
        flags=answer_flags(question),
    )


def abstention(prediction: Prediction, confidence: float, info: ModelInfo) -> Abstention | None:
    """Return why a prediction should not be acted on, or None."""
    if not any(m != "persona" for m in prediction.modalities_used):
        return "no_known_modality"
    if prediction.doubt is not None:
        return prediction.doubt
    return "low_confidence" if confidence < info.abstain_below else None


def shift_alert(event: PredictionEvent, rule: ShiftRule) -> ShiftAlert:
    """Return the alert of a prediction on which the rule fired."""
    assert event.shift is not None, "the rule fires on shifts only"
    return ShiftAlert(
        alert_id=alert_id(event.prediction_id, rule.digest),
        conversation_id=event.conversation_id,
        speaker_id=event.speaker_id,
        from_=event.shift.from_,
        to=event.shift.to,
        probability=event.shift.probability,
        rule=rule.name,
        severity=rule.severity,
        utterance_id=event.utterance_id,
        previous_utterance_id=event.shift.previous_utterance_id,
        prediction_id=event.prediction_id,
        model=event.model,
        input=event.input,
    )


def shift_of(question: Question, prediction: Prediction, labels: Sequence[str]) -> Shift | None:
    """Return the speaker's likeliest move of emotion; None for the speaker's first utterance."""
    moved = moved_of(question, prediction)
    if moved is None or prediction.shift is None:
        return None
    source, target = largest_move(prediction.shift, labels)
    before = question.opening.before.window.speakers[question.utterance.speaker_id]
    return Shift(moved, source, target, before.last_utterance_id)


def moved_of(question: Question, prediction: Prediction) -> float | None:
    """Return the probability of a shift as sent; None for the speaker's first utterance."""
    known = question.utterance.speaker_id in question.opening.before.window.speakers
    if prediction.shift is None or prediction.shift_probability is None or not known:
        return None
    return round(prediction.shift_probability, DECIMALS)


def answer_flags(question: Question) -> list[str]:
    """Return the flags of an answer; `MOVED` is the last one."""
    before, utterance = question.opening.before, question.utterance
    reused = [ID_REUSED] if before.id_reused else []
    moved = [MOVED] if question.moved else []
    read = flags_of(utterance)
    return [*disorder(utterance.seq, before.session.last_seq), *read, *reused, *moved]


def as_moved(event: PredictionEvent) -> PredictionEvent:
    """Return a prediction with the flag `MOVED`, for what recomputes one partition alone."""
    return replace(event, flags=[*event.flags, MOVED])


def disorder(seq: int | None, last_seq: int | None) -> list[str]:
    """Return the flags of a `seq` that does not follow the last one; order is never changed."""
    if seq is None or last_seq is None or seq == last_seq + 1:
        return []
    return [SEQ_GAP] if seq > last_seq else [SEQ_DISORDER]
