"""One answer of a model in this process."""

from __future__ import annotations

from typing import Any

from msgspec.structs import asdict

from stream.answers.apply import Answer
from stream.events.messages import PredictionEvent, ShiftAlert


class Answered(PredictionEvent, frozen=True):
    """A prediction event, with the shift alert it causes.

    All is as a worker writes it, but for what names a record of Kafka: `input`, `prediction_id`
    and `context.first_position` count the utterances of this conversation, from 0.
    """

    alert: ShiftAlert | None = None  # where the built-in rule fires

    @staticmethod
    def of(answer: Answer) -> Answered:
        """Return the event and the alert of an answer that is no dead letter."""
        assert answer.event is not None, "only a dead letter has no event"
        fields: dict[str, Any] = {**asdict(answer.event), "alert": answer.alert}
        return Answered(**fields)
