"""What is stored and sent for one position: stored outputs, and the records made from them.

Pure. What is stored for a position is lean: headers are rebuilt from the redelivered record, which
is the same record, so that a replay is byte-equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from state.store import StoredOutput
from stream.events.cloudevents import (
    ALERT_TYPE,
    PREDICTION_TYPE,
    Encoding,
    Envelope,
    event_headers,
    open_record,
)
from stream.events.dead_letter import dead_letter
from stream.events.messages import (
    Outcome,
    PredictionEvent,
    ShiftAlert,
    encode,
)
from stream.events.poison import Poison, Reason, Rejected
from stream.ports import Outgoing, Record


@dataclass(frozen=True, slots=True)
class Wire:
    """Where answers go and how they are written."""

    predictions: str
    shift_alerts: str
    dead_letters: str
    encoding: Encoding
    source: str


class Sent(msgspec.Struct, frozen=True, array_like=True):
    """One thing sent for a position, without what the redelivered record tells anyway."""

    kind: Literal["p", "a", "d"]  # prediction, alert, dead letter
    id: str  # prediction id, alert id, or the reason of the dead letter
    body: bytes  # the value, or the sentence of the dead letter
    encoding: Encoding = "json"


_PAYLOAD: Final = msgspec.msgpack.Decoder(tuple[Sent, ...])


def stored_output(outcome: Outcome, sent: Sequence[Sent]) -> StoredOutput:
    """What the store keeps of an answer until its offset is committed."""
    return StoredOutput(outcome, msgspec.msgpack.encode(tuple(sent)))


def sent_before(output: StoredOutput) -> tuple[Sent, ...]:
    """What was sent for a stored output. Raises `msgspec.DecodeError` for foreign bytes."""
    return _PAYLOAD.decode(output.payload)


def late_dead_letter(poison: Poison) -> Sent:
    """The stored form of a dead letter found after decoding."""
    return Sent("d", poison.reason.value, poison.sentence.encode())


def outgoing(sent: Sent, record: Record, wire: Wire) -> Outgoing:
    """The record to write for `sent`, which answers `record`; equal arguments give equal bytes."""
    if sent.kind == "d":
        poison = Poison(Reason(sent.id), sent.body.decode())
        return dead_letter(record, poison, topic=wire.dead_letters)
    envelope = envelope_of(record)
    alert = sent.kind == "a"
    headers = event_headers(
        id=sent.id,
        type=ALERT_TYPE if alert else PREDICTION_TYPE,
        source=wire.source,
        encoding=sent.encoding,
        time_ms=record.timestamp_ms,
        traceparent=envelope.traceparent,
        tracestate=envelope.tracestate,
        causation_id=(envelope.id or position_id(record)) if alert else None,
    )
    topic = wire.shift_alerts if alert else wire.predictions
    return Outgoing(topic, record.key, sent.body, tuple(headers))


def envelope_of(record: Record) -> Envelope:
    """The envelope of a record that was decoded before; a bare one if it cannot be read."""
    try:
        return open_record(record.headers, record.value or b"")[0]
    except Rejected:
        return Envelope()


def position_id(record: Record) -> str:
    """The id of an utterance event that came without one."""
    return f"{record.topic}-{record.partition}-{record.offset}"


def sent_for(event: PredictionEvent, alert: ShiftAlert | None, encoding: Encoding) -> list[Sent]:
    """A prediction, and its alert if there is one, as they are stored and sent."""
    sent = [Sent("p", event.prediction_id, encode(event, encoding), encoding)]
    if alert is not None:
        sent.append(Sent("a", alert.alert_id, encode(alert, encoding), encoding))
    return sent
