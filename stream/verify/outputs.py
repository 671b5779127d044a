"""What the output topics say, by the position that each record answers: the first half of `verify`.

Holds a packed copy of each distinct answer (about half a kilobyte a prediction) until the input log
has been read up to its position. Order and repeats are checked while reading (I2, I3).
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, TypeVar

import msgspec

from stream.answers.output_dictionary import OUTPUT_DICTIONARY
from stream.events.cloudevents import ALERT_TYPE, PREDICTION_TYPE, Encoding, Envelope, open_record
from stream.events.dead_letter import (
    DLQ_ID,
    DLQ_MESSAGE,
    DLQ_OFFSET,
    DLQ_PARTITION,
    DLQ_REASON,
    DLQ_TOPIC,
    dead_letter_id,
)
from stream.events.messages import PredictionEvent, ShiftAlert, prediction_id
from stream.events.poison import Poison, Reason, Rejected
from stream.ports import NO_TIMESTAMP, Headers, Record
from stream.verify.report import Invariant, Report, Violation

Position = tuple[int, int]  # partition and offset of the input log


@dataclass(frozen=True, slots=True)
class Place:
    """Where an output stands."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Predicted:
    """One distinct prediction of a position."""

    id: str
    model: str  # digest
    first_position: int
    truncated: bool
    heard_text: bool  # whether text is among its modalities
    encoding: Encoding
    packed: bytes
    place: Place

    def value(self) -> bytes:
        """The bytes in the topic."""
        return unpacked(self.packed)


@dataclass(frozen=True, slots=True)
class Alerted:
    """One distinct shift alert of a position."""

    id: str
    prediction_id: str
    model: str
    encoding: Encoding
    packed: bytes
    place: Place

    def value(self) -> bytes:
        """The bytes in the topic."""
        return unpacked(self.packed)


@dataclass(frozen=True, slots=True)
class Buried:
    """One dead letter of a position."""

    poison: Poison
    whole: bytes  # digest of key, value and all headers
    original: bytes  # the same without the sentence, which another version may word anew
    place: Place


@dataclass(slots=True)
class Answers:
    """All that was said about one position, each distinct thing once."""

    predictions: list[Predicted] = field(default_factory=list)
    alerts: list[Alerted] = field(default_factory=list)
    letters: list[Buried] = field(default_factory=list)

    def all(self) -> tuple[Predicted | Alerted | Buried, ...]:
        """Everything that was said."""
        return (*self.predictions, *self.alerts, *self.letters)


E = TypeVar("E", PredictionEvent, ShiftAlert)
PREDICTIONS: Final[Mapping[Encoding, Callable[[bytes], PredictionEvent]]] = {
    "json": msgspec.json.Decoder(PredictionEvent).decode,
    "msgpack": msgspec.msgpack.Decoder(PredictionEvent).decode,
}
ALERTS: Final[Mapping[Encoding, Callable[[bytes], ShiftAlert]]] = {
    "json": msgspec.json.Decoder(ShiftAlert).decode,
    "msgpack": msgspec.msgpack.Decoder(ShiftAlert).decode,
}


class Outputs:
    """Takes every record of the output topics, in log order within each partition."""

    def __init__(self, topic: str, lows: Mapping[int, int], report: Report) -> None:
        """`topic` is the utterances topic that the outputs must answer, `lows` its first offsets.

        Where the log no longer has its start, sessions begin at records that only their answers
        tell of.
        """
        self._topic, self._lows, self._report = topic, lows, report
        self.at: dict[Position, Answers] = defaultdict(Answers)
        self.starts: dict[Position, bool] = {}  # where a session begins -> context.truncated
        self.since_ms = NO_TIMESTAMP  # broker time from which on nothing has been taken away
        self._last: dict[tuple[str, int, int, str], int] = {}

    def prediction(self, record: Record) -> None:
        """A record of the predictions topic."""
        event = _event(record, PREDICTION_TYPE, PREDICTIONS)
        if event is None or event[0].input.topic != self._topic:
            self._report.count("not_ours")
            return
        said, envelope = event
        self._report.count("predictions")
        place = Place(record.topic, record.partition, record.offset)
        self._check_identity(said, envelope, record)
        context = said.context
        found = Predicted(
            said.prediction_id,
            said.model.digest,
            context.first_position,
            context.truncated,
            "text" in said.modalities_used,
            envelope.encoding,
            packed(record.value or b""),
            place,
        )
        answers = self.at[said.input.partition, said.input.offset]
        same_model = [p for p in answers.predictions if p.model == found.model]
        if not same_model:
            self._check_order(said, record)
        elif self._repeats(found, same_model, said.conversation_id):
            return
        answers.predictions.append(found)
        if context.truncated or self._lows.get(said.input.partition, 0) > 0:
            self.starts[said.input.partition, context.first_position] = context.truncated

    def _repeats(self, found: Predicted, before: list[Predicted], conversation: str) -> bool:
        """Whether this position has this answer already; differing repeats break I2."""
        for other in before:
            if (other.first_position, other.truncated) == (found.first_position, found.truncated):
                self._report.count("prediction_repeats")
                self._check_repeat(found, other, conversation)
                return True
        if any(p.truncated for p in (found, *before)):
            self._report.count("recomputed")
            return False
        says = (
            f"a second prediction of this position, begun at {found.first_position} and not at "
            f"{before[0].first_position}, and neither says that context is truncated"
        )
        self._violated("I2", says, found.place, conversation)
        return False

    def _check_repeat(
        self, found: Predicted | Alerted, before: Predicted | Alerted, conversation: str
    ) -> None:
        if found.id != before.id:
            says = f"repeated under another id, {found.id} after {before.id}"
        elif (found.packed, found.encoding) != (before.packed, before.encoding):
            says = f"repeated with other bytes than at {at(before.place)}"
        else:
            return
        self._violated("I2", says, found.place, conversation)

    def _check_identity(self, said: PredictionEvent, envelope: Envelope, record: Record) -> None:
        """The id must be the hash of what it names, in the data and in the header."""
        wanted = prediction_id(
            conversation_id=said.conversation_id,
            utterance_id=said.utterance_id,
            input=said.input,
            first_position=said.context.first_position,
            revision=said.revision,
            model_digest=said.model.digest,
        )
        place = Place(record.topic, record.partition, record.offset)
        if not wanted == said.prediction_id == envelope.id:
            says = f"its id is {said.prediction_id} (header {envelope.id}) and not {wanted}"
            self._violated("I2", says, place, said.conversation_id)
        if record.key != said.conversation_id.encode():
            says = "its key is not its conversation, so nothing orders it"
            self._violated("I3", says, place, said.conversation_id)

    def _check_order(self, said: PredictionEvent, record: Record) -> None:
        """I3: the first answer of a position comes after those of earlier positions."""
        key = (said.conversation_id, said.input.partition, record.partition, said.model.digest)
        last = self._last.get(key, -1)
        if said.input.offset < last:
            says = f"position {said.input.offset} is answered after position {last}"
            place = Place(record.topic, record.partition, record.offset)
            self._violated("I3", says, place, said.conversation_id)
        else:
            self._last[key] = said.input.offset

    def alert(self, record: Record) -> None:
        """A record of the shift-alerts topic."""
        event = _event(record, ALERT_TYPE, ALERTS)
        if event is None or event[0].input.topic != self._topic:
            self._report.count("not_ours")
            return
        said, envelope = event
        self._report.count("alerts")
        found = Alerted(
            said.alert_id,
            said.prediction_id,
            said.model.digest,
            envelope.encoding,
            packed(record.value or b""),
            Place(record.topic, record.partition, record.offset),
        )
        if envelope.id != found.id:
            says = f"its id is {found.id}, its header says {envelope.id}"
            self._violated("I2", says, found.place, said.conversation_id)
        answers = self.at[said.input.partition, said.input.offset]
        for other in answers.alerts:
            if other.prediction_id == found.prediction_id:
                self._report.count("alert_repeats")
                self._check_repeat(found, other, said.conversation_id)
                return
        answers.alerts.append(found)

    def dead_letter(self, record: Record) -> None:
        """A record of the dead-letters topic."""
        told = dict(record.headers)
        try:
            names = [DLQ_TOPIC, DLQ_PARTITION, DLQ_OFFSET, DLQ_REASON, DLQ_MESSAGE, DLQ_ID]
            topic, partition, offset, reason, sentence, id = (
                (told[name] or b"").decode(errors="replace") for name in names
            )
            position = (int(partition), int(offset))
            poison = Poison(Reason(reason), sentence)
        except (KeyError, ValueError):
            self._report.count("not_ours")
            return
        if topic != self._topic:
            self._report.count("not_ours")
            return
        self._report.count("dead_letters")
        place = Place(record.topic, record.partition, record.offset)
        found = Buried(
            poison,
            letter_digest(record.key, record.value, record.headers),
            original_digest(record.key, record.value, record.headers),
            place,
        )
        if id != dead_letter_id(topic, *position):
            self._violated("I2", f"its id is {id}, its position another", place, None)
        answers = self.at[position]
        if not answers.letters:
            answers.letters.append(found)
            return
        self._report.count("dead_letter_repeats")
        if found.whole != answers.letters[0].whole:
            says = f"repeated with other bytes than at {at(answers.letters[0].place)}"
            self._violated("I2", says, place, None)

    def _violated(
        self, invariant: Invariant, says: str, place: Place, conversation: str | None
    ) -> None:
        self._report.violated(
            Violation(invariant, says, place.topic, place.partition, place.offset, conversation)
        )


def _event(
    record: Record, type: str, decoders: Mapping[Encoding, Callable[[bytes], E]]
) -> tuple[E, Envelope] | None:
    """An event of ours, or None for anything else that stands in the topic."""
    try:
        envelope, data = open_record(record.headers, record.value or b"")
        if record.value is None or envelope.type != type:
            return None
        return decoders[envelope.encoding](data), envelope
    except (Rejected, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def at(place: Place) -> str:
    """How a place is named."""
    return f"{place.topic}-{place.partition}@{place.offset}"


def packed(value: bytes) -> bytes:
    """An event's bytes, small: a log of millions must fit into memory."""
    packer = zlib.compressobj(1, zlib.DEFLATED, -12, 5, zdict=OUTPUT_DICTIONARY)
    return packer.compress(value) + packer.flush()


def unpacked(value: bytes) -> bytes:
    """Undo `packed`."""
    return zlib.decompressobj(-12, zdict=OUTPUT_DICTIONARY).decompress(value)


def letter_digest(key: bytes | None, value: bytes | None, headers: Headers) -> bytes:
    """16 bytes over everything a record says."""
    digest = blake2b(digest_size=16)
    for part in (key, value, *(p for name, text in headers for p in (name.encode(), text))):
        digest.update(b"-" if part is None else b"%d:" % len(part) + part)
    return digest.digest()


def original_digest(key: bytes | None, value: bytes | None, headers: Headers) -> bytes:
    """The same but for the sentence of a dead letter."""
    return letter_digest(key, value, tuple(h for h in headers if h[0] != DLQ_MESSAGE))
