"""Answers and alerts as flat rows: the columns of a table, for files and data frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from stream.events.messages import PredictionEvent, ShiftAlert

Row = dict[str, Any]
PROBABILITY: Final = "p_"  # before each label: a column of its probability
# Columns and the types of their cells; every cell but the ids may be None.
PREDICTION_COLUMNS: Final[Mapping[str, type]] = {
    "conversation_id": str,
    "utterance_id": str,
    "speaker_id": str,
    "emotion": str,
    "confidence": float,
    "sentiment": str,
    "abstained": bool,
    "reason": str,
    "shift_probability": float,
    "shift_from": str,
    "shift_to": str,
    "modalities_used": str,  # separated by spaces, as are the flags
    "flags": str,
    "model": str,
    "model_digest": str,
}
# Of answers in this process; on Kafka an alert is an event of its own.
ANSWER_COLUMNS: Final[Mapping[str, type]] = {**PREDICTION_COLUMNS, "alert": bool}
ALERT_COLUMNS: Final[Mapping[str, type]] = {
    "conversation_id": str,
    "utterance_id": str,
    "speaker_id": str,
    "from": str,
    "to": str,
    "probability": float,
    "severity": str,
    "rule": str,
    "previous_utterance_id": str,
    "model": str,
    "model_digest": str,
}


def rows(answers: Iterable[PredictionEvent]) -> list[Row]:
    """Return answers as rows that a data frame takes: `pandas.DataFrame(rows(answers))`.

    A column for each field, and `p_<label>` for the probability of each label.
    """
    return [answer_row(answer) for answer in answers]


def answer_row(answer: PredictionEvent) -> Row:
    """Return one answer as a row: the columns of a prediction, and `alert` where it knows."""
    shift, row = answer.shift, _common(answer)
    row |= {
        "emotion": answer.emotion,
        "confidence": answer.confidence,
        "sentiment": answer.sentiment,
        "abstained": answer.abstained,
        "reason": answer.reason,
        "shift_probability": None if shift is None else shift.probability,
        "shift_from": None if shift is None else shift.from_,
        "shift_to": None if shift is None else shift.to,
        "modalities_used": " ".join(answer.modalities_used),
        "flags": " ".join(answer.flags),
    }
    ordered = {name: row[name] for name in PREDICTION_COLUMNS}
    if hasattr(answer, "alert"):
        ordered["alert"] = answer.alert is not None
    return ordered | {PROBABILITY + label: p for label, p in answer.probabilities.items()}


def alert_row(alert: ShiftAlert) -> Row:
    """Return one shift alert as a row."""
    row = _common(alert) | {
        "from": alert.from_,
        "to": alert.to,
        "probability": alert.probability,
        "severity": alert.severity,
        "rule": alert.rule,
        "previous_utterance_id": alert.previous_utterance_id,
    }
    return {name: row[name] for name in ALERT_COLUMNS}


def probability_columns(labels: Sequence[str]) -> dict[str, type]:
    """Return the columns of the labels' probabilities."""
    return {PROBABILITY + label: float for label in labels}


def _common(event: PredictionEvent | ShiftAlert) -> Row:
    return {
        "conversation_id": event.conversation_id,
        "utterance_id": event.utterance_id,
        "speaker_id": event.speaker_id,
        "model": f"{event.model.name} {event.model.version}",
        "model_digest": event.model.digest,
    }
