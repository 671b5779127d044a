"""`emotrack verify` on real topics: read outputs, then the input log against them and Redis."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Final

from model.interface import Predictor
from state.redis_reader import States
from stream.brokers.topic_reader import Bounds, TopicReader
from stream.ports import NO_TIMESTAMP, Hole, Holes, Record
from stream.settings import Settings
from stream.stores import open_states
from stream.verify.check import Verifier
from stream.verify.lost import LostRecords
from stream.verify.outputs import Outputs
from stream.verify.reach import CLOCKS_MS, Reach, reach_of, require_partitions
from stream.verify.recompute import SIDE_BY_SIDE
from stream.verify.report import Expectations, Report
from stream.verify.selection import EVERYTHING, Selection

Progress = Callable[[int, int], None]
"""Called with the number of offsets passed, and of all."""
MOST_ANSWERS: Final = 500_000  # in memory at once, 0.8 KB each: more are checked in several passes


def verify_topics(
    settings: Settings,
    predictor: Predictor,
    *,
    selection: Selection = EVERYTHING,
    tolerance: float | None = None,
    allow_truncation: bool = True,
    side_by_side: int = SIDE_BY_SIDE,
    most_answers: int = MOST_ANSWERS,
    progress: Progress = lambda _passed, _total: None,
) -> Report:
    """Verify the topics of `settings.topic_prefix`, as answered by `settings.group`.

    `predictor` must be the model that answered, with the worker's recurrence settings; answers of
    another model are counted and not recomputed. `tolerance` is the largest difference of a
    probability that is excused (GPUs; None: bytes must be equal). With `allow_truncation` false, a
    prediction with `context.truncated` is a violation. `side_by_side` is the number of
    conversations that are recomputed together (1: each answer alone). States in a worker's own
    memory (`memory://`) are not read. Blocks; memory is about 0.8 KB for each of `most_answers`,
    and the windows of one partition's conversations of the last hours: a longer log is read in
    several passes, each of other conversations.

    Raises `BrokerUnreachable`, `AccessRefused`, `TopicMissing`, `StoreUnfit`, `ConfigError` for a
    partition that is not there, `BatchesDiffer`.
    """
    report = Report(states_read=not settings.in_memory, selection=selection)
    with contextlib.ExitStack() as closing:
        reader = closing.enter_context(TopicReader(settings))
        topics = settings.topics
        # Workers continue meanwhile, so the order matters: records committed here were answered
        # before the outputs' ends are read, and those answered there are before the input's ends.
        committed = reader.committed(topics.utterances, reader.bounds(topics.utterances))
        names = (topics.predictions, topics.shift_alerts, topics.dead_letters)
        answers = {name: reader.bounds(name) for name in names}
        inputs = reader.bounds(topics.utterances)
        require_partitions(topics.utterances, selection, inputs)
        states = None
        if not settings.in_memory:
            states = closing.enter_context(open_states(settings, predictor.spec))
        recurrence = predictor.spec.recurrence
        reach = reach_of(reader, recurrence, selection, inputs, topics)
        read = {p: reach.bounds(p, b) for p, b in inputs.items() if selection.has_partition(p)}
        expectations = Expectations(
            committed=committed,
            lows={p: read.get(p, b).low for p, b in inputs.items()},
            ends={p: bounds.end for p, bounds in inputs.items()},
            dead_letters=topics.dead_letters,
            max_uncommitted=settings.max_uncommitted,
            topic_id="" if settings.in_memory else reader.topic_id(topics.utterances),
            tolerance=tolerance,
            allow_truncation=allow_truncation,
            selection=selection,
            stretches=reach.stretches,
        )
        report.left_out += left_out(selection, inputs, expectations)
        starts = {name: cut(reader, name, of, reach) for name, of in answers.items()}
        work = Work(
            reader, predictor, states, report, topics.utterances, read, answers, starts, reach
        )
        passes = selection.passes(work.answered, most_answers)
        total = len(passes) * work.offsets
        for number, part in enumerate(passes):
            one = replace(expectations, selection=part)
            work.run(one, side_by_side, partial(_add, progress, number * work.offsets, total))
        return report


def _add(progress: Progress, before: int, total: int, passed: int) -> None:
    progress(before + passed, total)


def left_out(
    selection: Selection, inputs: Mapping[int, Bounds], expectations: Expectations
) -> list[str]:
    """Return a sentence for each kind of thing that a selection does not look at."""
    sentences: list[str] = []
    if selection.partitions is not None:
        others = sorted(inputs.keys() - selection.partitions)
        named = ", ".join(map(str, others)) or "none"
        sentences.append(f"partitions {named}; so not if `moved` is right")
    if selection.share < 1.0:
        sentences.append(
            f"{100 * (1 - selection.share):g} % of the conversations, by the hash of their id, and "
            "records with other keys likewise"
        )
    if selection.since_ms is not None:
        since = datetime.fromtimestamp(selection.since_ms / 1000, UTC)
        before = sum(max(0, s.since - inputs[p].low) for p, s in expectations.stretches.items())
        sentences.append(
            f"{before:,} records before {since:%Y-%m-%dT%H:%M:%SZ}, unless a later session began "
            "there; so not if an id repeats one of an earlier session"
        )
    return sentences


def cut(
    reader: TopicReader, topic: str, bounds: Mapping[int, Bounds], reach: Reach
) -> dict[int, int]:
    """Return the offset from which each partition of an output topic is read."""
    lows = {p: b.low for p, b in bounds.items()}
    if reach.answers_since_ms is None:
        return lows
    at = reader.at(topic, dict.fromkeys(bounds, reach.answers_since_ms))
    return {p: min(bounds[p].end, max(low, at[p])) for p, low in lows.items()}


@dataclass(frozen=True, slots=True)
class Work:
    """One or several passes over the topics; each adds to the report."""

    reader: TopicReader
    predictor: Predictor
    states: States | None
    report: Report
    topic: str
    inputs: Mapping[int, Bounds]  # what is read of the log
    answers: Mapping[str, Mapping[int, Bounds]]  # of predictions, alerts, dead letters
    starts: Mapping[str, Mapping[int, int]]  # offset from which each is read
    reach: Reach

    @property
    def answered(self) -> int:
        """The number of offsets of the output topics that are read."""
        of = self.answers.items()
        return sum(b.end - self.starts[name][p] for name, bounds in of for p, b in bounds.items())

    @property
    def offsets(self) -> int:
        """The number of offsets of one pass."""
        return self.answered + sum(b.end - b.low for b in self.inputs.values())

    def run(
        self, expectations: Expectations, side_by_side: int, progress: Callable[[int], None]
    ) -> None:
        """Check the conversations of one pass; `progress` receives the number of offsets passed."""
        recurrence = self.predictor.spec.recurrence
        lost = LostRecords(1000 * (recurrence.max_session_s + recurrence.idle_s))
        outputs = Outputs(self.topic, expectations, self.report, lost)
        done = 0

        def read(name: str, partition: int, bounds: Bounds) -> Iterator[list[Record]]:
            nonlocal done
            for records in self.reader.read(name, partition, bounds):
                yield records
                progress(done + records[-1].offset + 1 - bounds.low)
            done += bounds.end - bounds.low
            progress(done)

        adders = (outputs.prediction, outputs.alert, outputs.dead_letter)
        for (name, of), add in zip(self.answers.items(), adders, strict=True):
            for partition, bounds in of.items():
                start = self.starts[name][partition]
                for i, records in enumerate(read(name, partition, Bounds(start, bounds.end))):
                    if i == 0:
                        first_ms = self._since_ms(start, bounds, records[0])
                        outputs.since_ms = max(outputs.since_ms, first_ms)
                    for record in records:
                        add(record)
        verifier = Verifier(self.predictor, outputs, self.states, side_by_side=side_by_side)
        for partition, bounds in self.inputs.items():
            holes = Holes(bounds.low)
            for records in read(self.topic, partition, bounds):
                holes.add(records)
                lose_all(verifier, self.reader.lost(self.topic, partition, holes.found))
                holes.found.clear()
                verifier.check(records, broker_time=self.reader.broker_time)
            holes.reach(bounds.end, time.time_ns() // 1_000_000)
            lose_all(verifier, self.reader.lost(self.topic, partition, holes.found))
            verifier.end_partition(self.topic, partition)
        verifier.finish()

    def _since_ms(self, start: int, bounds: Bounds, first: Record) -> int:
        """Return the time since which no answer of a partition of an output topic is missing.

        Answers before `start` were left out; before the first record, retention has deleted some.
        """
        if start > bounds.low and first.offset == start and self.reach.answers_since_ms is not None:
            return self.reach.answers_since_ms + CLOCKS_MS
        return first.timestamp_ms if first.offset > 0 else NO_TIMESTAMP


def lose_all(verifier: Verifier, holes: Sequence[Hole]) -> None:
    """Tell the verifier what left the log before the next records."""
    for hole in holes:
        verifier.lose(hole)
