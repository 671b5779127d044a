"""`emotrack verify` on real topics: read outputs, then the input log against them and Redis."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence

from model.interface import Predictor
from stream.brokers.topic_reader import Bounds, TopicReader
from stream.ports import Hole, Holes, Record
from stream.settings import Settings
from stream.stores import open_states
from stream.verify.check import Verifier
from stream.verify.lost import LostRecords
from stream.verify.outputs import Outputs
from stream.verify.report import Expectations, Report

Progress = Callable[[int, int], None]
"""Called with the number of offsets passed, and of all."""


def verify_topics(
    settings: Settings,
    predictor: Predictor,
    *,
    tolerance: float | None = None,
    allow_truncation: bool = True,
    progress: Progress = lambda _passed, _total: None,
) -> Report:
    """Verify the topics of `settings.topic_prefix`, as answered by `settings.group`.

    `predictor` must be the model that answered, with the worker's recurrence settings; answers of
    another model are counted and not recomputed. `tolerance` is the largest difference of a
    probability that is excused (GPUs; None: bytes must be equal). With `allow_truncation` false, a
    prediction with `context.truncated` is a violation. States in a worker's own memory
    (`memory://`) are not read. Blocks; memory is about 0.8 KB an answer, and the windows
    of one partition's conversations of the last hours.

    Raises `BrokerUnreachable`, `AccessRefused`, `TopicMissing`, `StoreUnfit`.
    """
    report = Report(states_read=not settings.in_memory)
    with contextlib.ExitStack() as closing:
        reader = closing.enter_context(TopicReader(settings))
        topic = settings.topics.utterances
        # Workers continue meanwhile, so the order matters: records committed here were answered
        # before the outputs' ends are read, and those answered there are before the input's ends.
        committed = reader.committed(topic, reader.bounds(topic))
        topics = settings.topics
        answer_topics = (topics.predictions, topics.shift_alerts, topics.dead_letters)
        answers = {name: reader.bounds(name) for name in answer_topics}
        inputs = reader.bounds(topic)
        states = None
        if not settings.in_memory:
            states = closing.enter_context(open_states(settings, predictor.spec))
        expectations = Expectations(
            committed=committed,
            lows={p: bounds.low for p, bounds in inputs.items()},
            ends={p: bounds.end for p, bounds in inputs.items()},
            dead_letters=settings.topics.dead_letters,
            max_uncommitted=settings.max_uncommitted,
            topic_id="" if settings.in_memory else reader.topic_id(topic),
            tolerance=tolerance,
            allow_truncation=allow_truncation,
        )
        recurrence = predictor.spec.recurrence
        lost = LostRecords(1000 * (recurrence.max_session_s + recurrence.idle_s))
        outputs = Outputs(topic, expectations, report, lost)
        every = [b for partitions in (inputs, *answers.values()) for b in partitions.values()]
        total, done = sum(b.end - b.low for b in every), 0

        def read(name: str, partition: int, bounds: Bounds) -> Iterator[list[Record]]:
            nonlocal done
            for records in reader.read(name, partition, bounds):
                yield records
                progress(done + records[-1].offset + 1 - bounds.low, total)
            done += bounds.end - bounds.low
            progress(done, total)

        adders = (outputs.prediction, outputs.alert, outputs.dead_letter)
        for name, add in zip(answer_topics, adders, strict=True):
            for partition, bounds in answers[name].items():
                for i, records in enumerate(read(name, partition, bounds)):
                    if i == 0 and bounds.low > 0:  # retention has deleted earlier answers
                        outputs.since_ms = max(outputs.since_ms, records[0].timestamp_ms)
                    for record in records:
                        add(record)
        verifier = Verifier(predictor, outputs, states)
        for partition, bounds in inputs.items():
            holes = Holes(bounds.low)
            for records in read(topic, partition, bounds):
                holes.add(records)
                lose_all(verifier, reader.lost(topic, partition, holes.found))
                holes.found.clear()
                verifier.check(records, broker_time=reader.broker_time)
            holes.reach(bounds.end, time.time_ns() // 1_000_000)
            lose_all(verifier, reader.lost(topic, partition, holes.found))
            verifier.end_partition(topic, partition)
        return verifier.finish()


def lose_all(verifier: Verifier, holes: Sequence[Hole]) -> None:
    """Tell the verifier what left the log before the next records."""
    for hole in holes:
        verifier.lose(hole)
