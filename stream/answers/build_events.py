"""From what the model said to what is sent and kept: events, their bytes, and how they are stored.

Pure. What is stored for a position is lean: headers are rebuilt from the redelivered record, which
is the same record, so that a replay is byte-equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from model.interface import ModelInfo, Prediction
from state.window import Opening
from stream.answers.shift_rule import ShiftRule, largest_move
from stream.events.messages import (
    Context,
    InputRef,
    ModelRef,
    PredictionEvent,
    Shift,
    ShiftAlert,
    Utterance,
    alert_id,
    prediction_id,
)
from stream.ports import Record

DECIMALS: Final = 6  # of a probability on the wire: below what calibration can mean


def prediction_event(
    utterance: Utterance,
    prediction: Prediction,
    opening: Opening,
    info: ModelInfo,
    record: Record,
) -> PredictionEvent:
    """The prediction as people read it."""
    window, session = opening.before.window, opening.before.session
    position = InputRef(record.topic, record.partition, record.offset)
    best = max(range(len(info.labels)), key=prediction.probabilities.__getitem__)
    confidence = prediction.probabilities[best]
    reason = why_abstained(prediction, confidence, info)
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
        probabilities=named(info.labels, prediction.probabilities),
        confidence=round(confidence, DECIMALS),
        sentiment=info.sentiment[info.labels[best]],
        shift=shift_of(utterance, prediction, opening, info.labels),
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
        flags=disorder(utterance.seq, session.last_seq),
    )


def named(labels: Sequence[str], probabilities: Sequence[float]) -> dict[str, float]:
    """Probabilities by label, in label order, rounded for the wire."""
    return {label: round(p, DECIMALS) for label, p in zip(labels, probabilities, strict=True)}


def why_abstained(prediction: Prediction, confidence: float, info: ModelInfo) -> str | None:
    """Why a prediction should not be acted on; None when it may be."""
    if not any(m != "persona" for m in prediction.modalities_used):
        return "no_known_modality"
    return "low_confidence" if confidence < info.abstain_below else None


def shift_of(
    utterance: Utterance, prediction: Prediction, opening: Opening, labels: Sequence[str]
) -> Shift | None:
    """How likely the speaker's emotion moved; None for the speaker's first utterance."""
    moved = moved_of(utterance, prediction, opening)
    if moved is None or prediction.shift is None:
        return None
    source, target = largest_move(prediction.shift, labels)
    before = opening.before.window.speakers[utterance.speaker_id]
    return Shift(moved, source, target, before.last_utterance_id)


def moved_of(utterance: Utterance, prediction: Prediction, opening: Opening) -> float | None:
    """The probability of a shift as it is said; None for the speaker's first utterance."""
    known = utterance.speaker_id in opening.before.window.speakers
    if prediction.shift is None or prediction.shift_probability is None or not known:
        return None
    return round(prediction.shift_probability, DECIMALS)


def disorder(seq: int | None, last_seq: int | None) -> list[str]:
    """Flags of a `seq` that does not follow the last one of the session; order is never changed."""
    if seq is None or last_seq is None or seq == last_seq + 1:
        return []
    return ["seq_gap"] if seq > last_seq else ["seq_disorder"]


def highest_seq(seq: int | None, last: int | None) -> int | None:
    """The `seq` that the next utterance is compared with."""
    known = [s for s in (seq, last) if s is not None]
    return max(known, default=None)


def shift_alert(event: PredictionEvent, rule: ShiftRule) -> ShiftAlert:
    """The alert of a prediction on which the rule fired."""
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


def rule_of(info: ModelInfo) -> ShiftRule:
    """The built-in rule at the operating point the checkpoint was given on its dev split."""
    return ShiftRule(enter=info.shift_threshold, exit=info.shift_exit)
