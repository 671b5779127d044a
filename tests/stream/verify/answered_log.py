"""Hand-made logs for `verify`: right in every byte, until a test breaks one promise."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import structs

from model.interface import Predictor
from state.codec import TOKEN, Codec, Entries, stored_int
from state.memory_store import MemoryStore
from state.redis_reader import StoredState
from state.store import Save, StoredOutput
from state.window import NO_OFFSET, Change, Conversation, StateKey, apply_nothing
from stream.answers.apply import Answer, Model
from stream.answers.outbox import Wire, outgoing, sent_for
from stream.events.cloudevents import Envelope
from stream.events.dead_letter import dead_letter
from stream.events.decode import Decoder
from stream.events.messages import TopicNames, Utterance
from stream.events.poison import Poison
from stream.ports import Holes, Outgoing, Record
from stream.verify.check import Verifier
from stream.verify.lost import LostRecords
from stream.verify.outputs import Outputs
from stream.verify.report import Expectations, Report
from stream.verify.selection import EVERYTHING, WHOLE, Selection, Stretch
from stream.verify.timelines import Expected, applied
from tests.fakes.memory_log import LocalLog
from tests.fakes.predictor import SmallPredictor

WIRE = Wire(TopicNames(""), "json", "/test")
TOPICS = (WIRE.topics.predictions, WIRE.topics.shift_alerts, WIRE.topics.dead_letters)
TOPIC_ID = "topic"
HOUR_MS = 3_600_000


@dataclass
class AnsweredLog:
    """One partition of each topic, answered as a faultless worker would."""

    predictor: Predictor = field(default_factory=SmallPredictor)
    entries: dict[str, Entries] = field(default_factory=dict)
    ttl_ms: int = 1_000
    now_ms: int = 1_700_000_000_000

    def __post_init__(self) -> None:
        self.log = LocalLog(lambda: self.now_ms)
        self.known: dict[str, Conversation] = {}

    # Utterances, and what answers them.

    def say(self, conversation: str, utterance_id: str, **fields: Any) -> Record:
        """An utterance, and nothing that answers it."""
        self.now_ms += 1_000
        ids = {"conversation_id": conversation, "utterance_id": utterance_id, "speaker_id": "ann"}
        n = sum(utterance_id.encode())  # a mood that turns after every other utterance
        tensor = [4.0 + n % 3, 0.5] if n // 2 % 2 else [0.5, 4.0 + n % 3]
        body = ids | {"features": {"audio": {"tensor": tensor}}} | fields
        return self.log.append("utterances", conversation.encode(), json.dumps(body).encode())

    def answer(
        self, record: Record, *, truncated: bool = False, trusted: Poison | None = None
    ) -> Expected | None:
        """Write what answers `record`; a session that is `truncated` starts from nothing.

        `trusted`: the worker could not predict, and why.
        """
        message = self.decoded(record)
        if isinstance(message, Poison):
            self.write([dead_letter(record, message, topic=WIRE.topics.dead_letters)])
            return None
        assert isinstance(message, Utterance)
        known = None if truncated else self.known.get(message.conversation_id)
        expected, after = applied(
            self.predictor, Model.of(self.predictor), record, message, known,
            truncated=truncated, trusted=trusted,
        )  # fmt: skip
        self.write(self.outputs(expected))
        if after is not None:
            self.known[message.conversation_id] = after
            self.keep(message.conversation_id)
        return expected

    def decoded(self, record: Record) -> object:
        return Decoder(self.predictor.info.inputs).decode(record).message

    def outputs(self, expected: Expected) -> list[Outgoing]:
        """Return the records that a worker sends."""
        unchanged = apply_nothing(None, spec=self.predictor.spec, offset=expected.record.offset)
        answer = Answer(
            expected.outcome, unchanged, expected.prediction, expected.alert, expected.poison
        )
        return [
            outgoing(one, expected.record, Envelope(), WIRE) for one in sent_for(answer, "json")
        ]

    def write(self, outputs: Sequence[Outgoing]) -> None:
        for one in outputs:
            self.log.append(one.topic, one.key, one.value, one.headers)

    def keep(self, conversation: str) -> None:
        """Return a conversation's state as the store has it now."""
        store, after = MemoryStore(self.predictor.spec), self.known[conversation]
        key = StateKey(conversation, TOPIC_ID, 0)
        store.save_many([Save(key, 1, NO_OFFSET, Change(after), StoredOutput("predicted", b""), 0)])
        self.entries[conversation] = store.entries(key)

    def talk(self, conversation: str, n: int, start: int = 0) -> list[Record]:
        """Utterances of two speakers, each answered."""
        records = [
            self.say(conversation, f"{conversation}{i}", speaker_id=f"s{i % 2}")
            for i in range(start, start + n)
        ]
        for record in records:
            self.answer(record)
        return records

    # The topics, the store, and verifying them.

    def records(self, topic: str) -> list[Record]:
        return self.log.records[topic, 0]

    def rewrite(self, topic: str, index: int, **fields: Any) -> None:
        """Change fields of an event that stands in a topic."""
        record = self.records(topic)[index]
        value = msgspec.json.encode(json.loads(record.value or b"") | fields)
        self.records(topic)[index] = structs.replace(record, value=value)

    def read(self, keys: Sequence[StateKey]) -> list[StoredState | None]:
        """`States`: what the store holds."""
        codec = Codec(self.predictor.spec)
        states: list[StoredState | None] = []
        for key in keys:
            entries = self.entries.get(key.conversation_id)
            if entries is None:
                states.append(None)
                continue
            token = stored_int(entries.fields.get(TOKEN))
            sizes = len(entries.rows), len(entries.ids), len(entries.outputs)
            loaded = codec.decode(key, entries)
            states.append(StoredState(loaded, token, *sizes, (self.ttl_ms,)))
        return states

    def verify(
        self, *, committed: int | None = None, low: int = 0, tolerance: float | None = None,
        allow_truncation: bool = True, max_uncommitted: int = 512, chunk: int = 5,
        removed: Collection[int] = (), lows: Mapping[int, int] = MappingProxyType({}),
        selection: Selection = EVERYTHING, stretch: Stretch = WHOLE, side_by_side: int = 256,
    ) -> Report:  # fmt: skip
        """Verify it; `committed` None: all records are; those below `low` or `removed` are gone.

        Nothing of other partitions is committed or answered; `lows` are theirs. `stretch` is what
        is read of partition 0.
        """
        low = max(low, stretch.first)
        report, inputs = Report(), self.records("utterances")
        others = self.log.records.get(("utterances", 1), [])
        lost = LostRecords(self.predictor.spec.recurrence.idle_s * 1000)
        expectations = Expectations(
            committed={0: len(inputs) if committed is None else committed},
            lows={0: low, 1: 0, **lows},
            ends={0: len(inputs), 1: len(others)},
            topic_id=TOPIC_ID,
            tolerance=tolerance,
            allow_truncation=allow_truncation,
            max_uncommitted=max_uncommitted,
            selection=selection,
            stretches={0: stretch},
        )
        outputs = Outputs("utterances", expectations, report, lost)
        takes = (outputs.prediction, outputs.alert, outputs.dead_letter)
        for topic, take in zip(TOPICS, takes, strict=True):
            for record in self.records(topic):
                take(record)
        verifier = Verifier(self.predictor, outputs, self, side_by_side=side_by_side)
        holes = Holes(low)
        for start in range(low, len(inputs), chunk):
            there = [r for r in inputs[start : start + chunk] if r.offset not in removed]
            holes.add(there)
            for hole in holes.found:
                verifier.lose(hole)
            holes.found.clear()
            if there:
                verifier.check(there, broker_time=True)
        verifier.end_partition("utterances", 0)
        if others:
            verifier.check(others, broker_time=True)
            verifier.end_partition("utterances", 1)
        return verifier.finish()
