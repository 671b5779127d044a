"""The records of the output topics, by the position of the input log that they answer.

Stores each distinct answer, packed, until the input log is read up to its position: 790 bytes for a
prediction of 960 whose ids are UUIDs (250 of them its packed value). Order and repeats are checked
while reading (I2, I3).
"""

from __future__ import annotations

import sys
import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import Final, TypeVar

import msgspec

from stream.events.cloudevents import ALERT_TYPE, PREDICTION_TYPE, Encoding, Envelope, open_record
from stream.events.dead_letter import Dlq, dead_letter_id, letter_of
from stream.events.messages import MOVED, PredictionEvent, ShiftAlert, prediction_id
from stream.events.poison import Poison, Reason, Rejected
from stream.ports import NO_TIMESTAMP, Headers, Record
from stream.verify.compare import plain
from stream.verify.lost import LostRecords
from stream.verify.report import Expectations, Invariant, Position, Report

E = TypeVar("E", PredictionEvent, ShiftAlert)
REASONS: Final = frozenset(Reason)


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One distinct event of a position; `packed` is its value, deflated against `sample`."""

    id: str
    model: str  # digest
    encoding: Encoding
    packed: bytes
    sample: bytes
    position: Position

    def value(self) -> bytes:
        """Return the bytes in the topic."""
        return zlib.decompressobj(-12, zdict=self.sample).decompress(self.packed)


@dataclass(frozen=True, slots=True)
class LoggedPrediction(LoggedEvent):
    """One distinct prediction of a position."""

    first_position: int
    truncated: bool
    used_text: bool
    moved: bool  # flag: its conversation is on several partitions

    @property
    def session(self) -> tuple[int, bool]:
        """Its session: the first position, and true where its context is truncated."""
        return self.first_position, self.truncated


@dataclass(frozen=True, slots=True)
class LoggedAlert(LoggedEvent):
    """One distinct shift alert of a position."""

    prediction_id: str


@dataclass(frozen=True, slots=True)
class LoggedDeadLetter:
    """The dead letter of a position."""

    poison: Poison
    digest: bytes  # of all but the sentence, whose words another version may change
    position: Position


@dataclass(slots=True)
class LoggedAnswers:
    """The answers to one position, each distinct one once."""

    # Tuples: an empty one costs nothing, and most positions have one prediction and nothing else.
    predictions: tuple[LoggedPrediction, ...] = ()
    alerts: tuple[LoggedAlert, ...] = ()
    dead_letter: LoggedDeadLetter | None = None

    def positions(self) -> list[Position]:
        """Return the positions of the answers in the output topics."""
        letters = () if self.dead_letter is None else (self.dead_letter,)
        return [answer.position for answer in (*self.predictions, *self.alerts, *letters)]


class Outputs:
    """An index of the output topics, fed in log order within each partition."""

    def __init__(
        self, topic: str, expectations: Expectations, report: Report, lost: LostRecords
    ) -> None:
        """`topic` is the utterances topic that the outputs must answer; `lost` what it lacks."""
        self.lost = lost
        self._topic, self.expectations, self.report = topic, expectations, report
        self.at: dict[Position, LoggedAnswers] = defaultdict(LoggedAnswers)
        self.starts: dict[Position, bool] = {}  # first position of a session -> context.truncated
        self.since_ms = NO_TIMESTAMP  # broker time since which retention has deleted nothing
        self.moved: dict[str, Position] = {}  # conversation -> first prediction that says moved
        self._is_context = False  # the record that is added answers one before `since`
        self._samples: dict[type, bytes] = {}
        self._last: dict[tuple[str, int, int, str], int] = {}

    def prediction(self, record: Record) -> None:
        """Add a record of the predictions topic."""
        opened = self._open(record, PREDICTION_TYPE, PredictionEvent)
        if opened is None:
            return
        event, envelope = opened
        context, input = event.context, event.input
        if not self._is_wanted(input.partition, input.offset, record):
            return
        self._count("predictions")
        found = LoggedPrediction(
            event.prediction_id,
            *self._common(event, envelope, record),
            context.first_position,
            context.truncated,
            "text" in event.modalities_used,
            MOVED in event.flags,
        )
        if found.moved:
            self._count("moved")
            self.moved.setdefault(event.conversation_id, found.position)
        self._check_identity(event, envelope.id, record.key, found.position)
        answered = self.at[Position(self._topic, input.partition, input.offset)]
        before = [p for p in answered.predictions if p.model == found.model]
        if not before:
            self._check_order(event, found.position)
        elif self._is_repeat(found, before, event.conversation_id):
            return
        answered.predictions += (found,)
        # Where the log no longer has its start, only answers show where sessions began.
        if context.truncated or self.expectations.is_cut(input.partition):
            start = Position(self._topic, input.partition, context.first_position)
            self.starts[start] = context.truncated

    def alert(self, record: Record) -> None:
        """Add a record of the shift-alerts topic."""
        opened = self._open(record, ALERT_TYPE, ShiftAlert)
        if opened is None:
            return
        event, envelope = opened
        if not self._is_wanted(event.input.partition, event.input.offset, record):
            return
        self._count("alerts")
        common = self._common(event, envelope, record)
        found = LoggedAlert(event.alert_id, *common, event.prediction_id)
        if envelope.id != found.id:
            text = f"its id is {found.id}, its header says {envelope.id}"
            self._violated(Invariant.I2, text, found.position, event.conversation_id)
        answered = self.at[Position(self._topic, event.input.partition, event.input.offset)]
        for before in answered.alerts:
            if before.prediction_id == found.prediction_id:
                self._count("alert_repeats")
                self._check_repeat(found, before, event.conversation_id)
                return
        answered.alerts += (found,)

    def dead_letter(self, record: Record) -> None:
        """Add a record of the dead-letters topic."""
        if not self._is_looked_at(record):
            return
        letter = letter_of(record)
        if (
            letter is None
            or letter.topic != self._topic
            or letter.reason not in REASONS
            or not letter.sentence
        ):
            self.report.count("not_ours")
            return
        if not self._is_wanted(letter.partition, letter.offset, record):
            return
        self._count("dead_letters")
        found = LoggedDeadLetter(
            Poison(Reason(letter.reason), letter.sentence),
            digest(record.key, record.value, record.headers),
            Position.of(record),
        )
        if letter.id != dead_letter_id(letter.topic, letter.partition, letter.offset):
            text = f"its id is {letter.id}, its position another"
            self._violated(Invariant.I2, text, found.position, None)
        answered = self.at[Position(self._topic, letter.partition, letter.offset)]
        before = answered.dead_letter
        if before is None:
            answered.dead_letter = found
            return
        self._count("dead_letter_repeats")
        if (found.poison, found.digest) != (before.poison, before.digest):
            text = f"repeated with other bytes than at {before.position}"
            self._violated(Invariant.I2, text, found.position, None)

    def _open(self, record: Record, name: str, type: type[E]) -> tuple[E, Envelope] | None:
        """Return an event that answers the input log; count any other record and return None."""
        if not self._is_looked_at(record):
            return None
        try:
            envelope, data = open_record(record.headers, record.value or b"")
            if record.value is not None and envelope.type == name:
                codec = msgspec.json if envelope.encoding == "json" else msgspec.msgpack
                event = codec.decode(data, type=type)
                if event.input.topic == self._topic:
                    return event, envelope
        except (Rejected, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        self.report.count("not_ours")
        return None

    def _is_looked_at(self, record: Record) -> bool:
        """Return whether a record's key, that of the record it answers, is looked at."""
        selection = self.expectations.selection
        if selection.in_pass(record.key):
            return True
        if selection.part == 0 and not selection.in_sample(record.key):
            self.report.count("unsampled_answers")
        return False

    def _is_wanted(self, partition: int, offset: int, record: Record) -> bool:
        """Return whether the record at this position of the input log is looked at."""
        wanted = self.expectations.selection.has_partition(partition)
        stretch = self.expectations.stretch(partition)
        if wanted and stretch.answers(offset, record.key):
            self._is_context = offset < stretch.since
            return True
        self.report.count("other_answers")
        return False

    def _count(self, what: str) -> None:
        """Count an answer to what is checked: of its context nothing is said."""
        self.report.count(what, not self._is_context)

    def _violated(
        self, invariant: Invariant, text: str, position: Position, who: str | None
    ) -> None:
        """Report a violation by an answer to what is checked."""
        if not self._is_context:
            self.report.violated(invariant, text, position, who)

    def _common(
        self, event: PredictionEvent | ShiftAlert, envelope: Envelope, record: Record
    ) -> tuple[str, Encoding, bytes, bytes, Position]:
        """Return the fields of a `LoggedEvent` after its id.

        The value is deflated against the first of its type, so that millions fit into memory: the
        first is much like all others (names, labels and digests of one model).
        """
        value = record.value or b""
        sample = self._samples.setdefault(type(event), value)
        packer = zlib.compressobj(1, zlib.DEFLATED, -12, 5, zdict=sample)
        packed = packer.compress(value) + packer.flush()
        digest = sys.intern(event.model.digest)
        return digest, envelope.encoding, packed, sample, Position.of(record)

    def _is_repeat(
        self, found: LoggedPrediction, before: Sequence[LoggedPrediction], who: str
    ) -> bool:
        """Return whether this position has this answer already; differing repeats break I2."""
        for other in before:
            if other.session == found.session:
                self._count("prediction_repeats")
                self._check_repeat(found, other, who)
                return True
        # A worker that lost a state may answer again, with `context.truncated` set.
        if any(p.truncated for p in (found, *before)):
            self._count("recomputed")
            return False
        text = (
            f"a second prediction of this position, begun at {found.first_position} and not at "
            f"{before[0].first_position}, and neither says that context is truncated"
        )
        self._violated(Invariant.I2, text, found.position, who)
        return False

    def _check_repeat(self, found: LoggedEvent, before: LoggedEvent, who: str) -> None:
        """Check I2: delivery is at least once, so an answer may come again, with equal bytes.

        Where the store lost its data between the two, `moved` may differ: it is noted there alone.
        """
        if found.id != before.id:
            text = f"repeated under another id, {found.id} after {before.id}"
        elif (found.packed, found.encoding) != (before.packed, before.encoding):
            if only_one_moved(found, before):
                return
            text = f"repeated with other bytes than at {before.position}"
        else:
            return
        self._violated(Invariant.I2, text, found.position, who)

    def _check_identity(
        self, event: PredictionEvent, header_id: str | None, key: bytes | None, position: Position
    ) -> None:
        """Check that the id is the hash of what it names, in data and header, and the key (I3)."""
        who = event.conversation_id
        expected = prediction_id(
            conversation_id=event.conversation_id,
            utterance_id=event.utterance_id,
            input=event.input,
            first_position=event.context.first_position,
            revision=event.revision,
            model_digest=event.model.digest,
        )
        if not expected == event.prediction_id == header_id:
            text = f"its id is {event.prediction_id} (header {header_id}) and not {expected}"
            self._violated(Invariant.I2, text, position, who)
        # Kafka orders records of one partition only, and the partition follows from the key.
        if key != who.encode():
            text = "its key is not its conversation, so nothing orders it"
            self._violated(Invariant.I3, text, position, who)

    def _check_order(self, event: PredictionEvent, position: Position) -> None:
        """Check I3: the first answer of a position comes after those of earlier positions.

        Repeats may come later: a replay starts from the last commit.
        """
        who, offset = event.conversation_id, event.input.offset
        key = (who, event.input.partition, position.partition, event.model.digest)
        last = self._last.get(key, -1)
        if offset < last:
            text = f"position {offset} is answered after position {last}"
            self._violated(Invariant.I3, text, position, who)
        else:
            self._last[key] = offset


def only_one_moved(found: LoggedEvent, before: LoggedEvent) -> bool:
    """Return whether two events are predictions that differ in the flag `moved` alone."""
    if not (isinstance(found, LoggedPrediction) and isinstance(before, LoggedPrediction)):
        return False
    marked, other = (found, before) if found.moved else (before, found)
    fields = plain(marked.value(), marked.encoding)
    flags = [flag for flag in fields["flags"] if flag != MOVED]
    return (
        marked.moved
        and not other.moved
        and marked.encoding == other.encoding
        and fields | {"flags": flags} == plain(other.value(), other.encoding)
    )


def digest(key: bytes | None, value: bytes | None, headers: Headers) -> bytes:
    """Return 16 bytes over a dead letter's key, value and headers, without its sentence."""
    others = ((name.encode(), text) for name, text in headers if name != Dlq.MESSAGE)
    hash = blake2b(digest_size=16)
    for part in (key, value, *chain.from_iterable(others)):
        hash.update(b"-" if part is None else b"%d:" % len(part) + part)
    return hash.digest()
