"""Stored outputs of a position, and the records to send that are built from them. Pure.

Headers are not stored: they are rebuilt from the redelivered record, which is the same record, so
that a replay is byte-equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from state.store import StoredOutput
from stream.answers.apply import Answer
from stream.events.cloudevents import ALERT_TYPE, PREDICTION_TYPE, Encoding, Envelope, event_headers
from stream.events.dead_letter import dead_letter
from stream.events.messages import Outcome, TopicNames, encode
from stream.events.poison import Poison, Reason
from stream.ports import Outgoing, Record


@dataclass(frozen=True, slots=True)
class Wire:
    """The topics and the form in which answers are written."""

    topics: TopicNames
    encoding: Encoding
    source: str


class Sent(msgspec.Struct, frozen=True, array_like=True):
    """One output of a position, without what follows from the redelivered record."""

    kind: Literal["p", "a", "d"]  # prediction, alert, dead letter
    id: str  # prediction id, alert id, or the reason of the dead letter
    body: bytes  # the value, or the sentence of the dead letter
    encoding: Encoding = "json"


_PAYLOAD: Final = msgspec.msgpack.Decoder(tuple[Sent, ...])


def stored_output(outcome: Outcome, sent: Sequence[Sent]) -> StoredOutput:
    """Return the part of an answer that is stored until its offset is committed."""
    return StoredOutput(outcome, msgspec.msgpack.encode(tuple(sent)))


def sent_before(output: StoredOutput) -> tuple[Sent, ...]:
    """Read a stored output. Raises `msgspec.DecodeError` for bytes of another origin."""
    return _PAYLOAD.decode(output.payload)


def sent_for(answer: Answer, encoding: Encoding) -> list[Sent]:
    """Return the outputs of an answer, in this order: prediction and alert, or a dead letter."""
    sent: list[Sent] = []
    if (event := answer.event) is not None:
        sent.append(Sent("p", event.prediction_id, encode(event, encoding), encoding))
    if (alert := answer.alert) is not None:
        sent.append(Sent("a", alert.alert_id, encode(alert, encoding), encoding))
    if answer.poison is not None:
        sent.append(Sent("d", answer.poison.reason.value, answer.poison.sentence.encode()))
    return sent


def outgoing(sent: Sent, record: Record, envelope: Envelope, wire: Wire) -> Outgoing:
    """Return the record to write for an output of `record`; equal arguments give equal bytes."""
    if sent.kind == "d":
        poison = Poison(Reason(sent.id), sent.body.decode())
        return dead_letter(record, poison, topic=wire.topics.dead_letters)
    alert = sent.kind == "a"
    # An utterance event without an id is named by its position.
    cause = envelope.id or f"{record.topic}-{record.partition}-{record.offset}"
    headers = event_headers(
        id=sent.id,
        type=ALERT_TYPE if alert else PREDICTION_TYPE,
        source=wire.source,
        encoding=sent.encoding,
        time_ms=record.timestamp_ms,
        traceparent=envelope.traceparent,
        tracestate=envelope.tracestate,
        causation_id=cause if alert else None,
    )
    topic = wire.topics.shift_alerts if alert else wire.topics.predictions
    return Outgoing(topic, record.key, sent.body, tuple(headers))
