"""Find the stretch of each partition that must be read to check what came since a time.

An answer says where its session began (`context.first_position`), so the answers since then tell
how far back the log must be read, and for which conversations; `idle_s` more shows which
conversations were silent before, so that nothing earlier counts for them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import msgspec

from state.window import Recurrence
from stream.brokers.topic_reader import Bounds, TopicReader
from stream.errors import ConfigError
from stream.events.cloudevents import PREDICTION_TYPE, open_record
from stream.events.messages import TopicNames
from stream.events.poison import Rejected
from stream.ports import Record
from stream.verify.selection import Selection, Stretch

# A worker's clock may be behind the broker's by as much: answers written since then are read.
CLOCKS_MS: Final = 600_000


class _Input(msgspec.Struct):
    topic: str
    partition: int
    offset: int


class _Context(msgspec.Struct):
    first_position: int


class _Answer(msgspec.Struct):
    """The fields of a prediction that say where its session began."""

    input: _Input
    context: _Context


@dataclass(frozen=True, slots=True)
class Reach:
    """The part that is read: of the input log by partition, of the output topics since a time."""

    stretches: Mapping[int, Stretch]
    answers_since_ms: int | None = None  # None: all

    def bounds(self, partition: int, whole: Bounds) -> Bounds:
        """Return the part of a partition of the input log that is read."""
        stretch = self.stretches.get(partition)
        return whole if stretch is None else Bounds(max(whole.low, stretch.first), whole.end)


def require_partitions(topic: str, selection: Selection, inputs: Mapping[int, Bounds]) -> None:
    """Raise `ConfigError` where a partition was chosen that the topic has not."""
    absent = sorted((selection.partitions or frozenset()) - inputs.keys())
    if absent:
        raise ConfigError(
            f"topic {topic} has the partitions 0 to {max(inputs)}: --partition "
            f"{' --partition '.join(map(str, absent))} is none of them"
        )


def reach_of(
    reader: TopicReader,
    recurrence: Recurrence,
    selection: Selection,
    inputs: Mapping[int, Bounds],
    topics: TopicNames,
) -> Reach:
    """Return what must be read to check a selection; `inputs` has all partitions of the log."""
    since_ms, topic = selection.since_ms, topics.utterances
    if since_ms is None:
        return Reach({})
    chosen = [p for p in inputs if selection.has_partition(p)]
    since = reader.at(topic, dict.fromkeys(chosen, since_ms))
    first = _sessions(reader, selection, topics, since)
    idle_ms, longest_ms = int(recurrence.idle_s * 1000), int(recurrence.max_session_s * 1000)
    earliest = reader.at(topic, dict.fromkeys(chosen, since_ms - longest_ms))
    began_ms = dict.fromkeys(chosen, since_ms)
    for partition, sessions in first.items():
        low, end = inputs[partition].low, since[partition]
        at = max(low, earliest[partition], min(sessions.values()))
        for records in reader.read(topic, partition, Bounds(at, end)):
            began_ms[partition] = min(since_ms, records[0].timestamp_ms)
            break
    read_ms = {p: max(ms, since_ms - longest_ms) - idle_ms for p, ms in began_ms.items()}
    starts = reader.at(topic, read_ms)
    stretches = {
        p: Stretch(max(inputs[p].low, starts[p]), since[p], read_ms[p], frozenset(first.get(p, ())))
        for p in chosen
    }
    # Where retention has deleted the start, only what is there was read.
    for p, stretch in stretches.items():
        if 0 < inputs[p].low >= starts[p]:
            stretches[p] = Stretch(stretch.first, stretch.since, None, stretch.needed)
    return Reach(stretches, min(read_ms.values(), default=since_ms) - CLOCKS_MS)


def _sessions(
    reader: TopicReader, selection: Selection, topics: TopicNames, since: Mapping[int, int]
) -> dict[int, dict[bytes, int]]:
    """Return the conversations whose session at `since` began before it, and where.

    By partition; from the answers to what came since.
    """
    found: dict[int, dict[bytes, int]] = defaultdict(dict)
    assert selection.since_ms is not None
    predictions, bounds = topics.predictions, reader.bounds(topics.predictions)
    starts = reader.at(predictions, dict.fromkeys(bounds, selection.since_ms - CLOCKS_MS))
    for partition, of in bounds.items():
        wanted = Bounds(max(of.low, starts[partition]), of.end)
        for records in reader.read(predictions, partition, wanted):
            for key, answer in _answers(records, selection, topics.utterances):
                at, first = answer.input, answer.context.first_position
                if first < since.get(at.partition, 0) <= at.offset:
                    sessions = found[at.partition]
                    sessions[key] = min(first, sessions.get(key, first))
    return found


def _answers(
    records: list[Record], selection: Selection, topic: str
) -> Iterator[tuple[bytes, _Answer]]:
    """Yield the predictions of the sample that answer `topic`, with their keys."""
    for record in records:
        if record.value is None or not selection.in_sample(record.key):
            continue
        try:
            envelope, data = open_record(record.headers, record.value)
            if envelope.type != PREDICTION_TYPE:
                continue
            codec = msgspec.json if envelope.encoding == "json" else msgspec.msgpack
            answer = codec.decode(data, type=_Answer)
        except (Rejected, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # counted where answers are checked
        if answer.input.topic == topic:
            yield record.key or b"", answer
