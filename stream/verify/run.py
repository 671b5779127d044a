"""`emotrack verify` on real topics: read outputs, then the input log against them and Redis.

The order of the looks makes them fit while workers go on: what the group has committed first, then
where the outputs end, then where the input ends; so what was committed has been answered within
what is read, and what is answered is a record of what is read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping

from model.interface import Predictor
from stream.brokers.topic_reader import Bounds, LogReader
from stream.ports import Record
from stream.settings import Settings
from stream.stores import open_states
from stream.verify.check import Verifier
from stream.verify.outputs import Outputs
from stream.verify.report import Report, Terms

Progress = Callable[[int, int], None]
"""Told how many offsets have been passed, of how many."""


def ignore_progress(_passed: int, _total: int) -> None:
    """For those who only want the report."""


def verify_topics(
    settings: Settings,
    predictor: Predictor,
    *,
    tolerance: float | None = None,
    allow_truncation: bool = True,
    progress: Progress = ignore_progress,
) -> Report:
    """Verify the topics of `settings.topic_prefix`, as answered by `settings.group`.

    `predictor` must be the model that answered, with the worker's recurrence settings; what another
    model answered is counted and not recomputed. `tolerance` is the largest difference of a
    probability that is excused (GPUs; None: bytes must be equal). With `allow_truncation` false, a
    prediction that says `context.truncated` is a violation. States in a worker's own memory
    (`memory://`) are not looked at. Blocks; memory is about half a kilobyte an answer, and the
    windows of one partition's conversations of the last hours.

    Raises `BrokerUnreachable`, `AccessRefused`, `TopicMissing`, `StoreUnfit`.
    """
    report = Report(states_read=not settings.in_memory)
    with contextlib.ExitStack() as closing:
        reader = closing.enter_context(LogReader(settings))
        topic = settings.topics.utterances
        committed = reader.committed(topic, reader.bounds(topic))
        ends = {name: reader.bounds(name) for name in output_topics(settings)}
        inputs = reader.bounds(topic)
        passed = _Passed(progress, [inputs, *ends.values()])
        states = None
        if not settings.in_memory:
            states = closing.enter_context(open_states(settings, predictor.spec))
        terms = Terms(
            committed=committed,
            lows={p: bounds.low for p, bounds in inputs.items()},
            ends={p: bounds.end for p, bounds in inputs.items()},
            dead_letters=settings.topics.dead_letters,
            max_uncommitted=settings.max_uncommitted,
            topic_id="" if settings.in_memory else reader.topic_id(topic),
            tolerance=tolerance,
            allow_truncation=allow_truncation,
        )
        outputs = Outputs(topic, terms.lows, report)
        take = dict(
            zip(
                output_topics(settings),
                (outputs.prediction, outputs.alert, outputs.dead_letter),
                strict=True,
            )
        )
        for name, found in ends.items():
            for partition, bounds in found.items():
                _read_outputs(reader, name, partition, bounds, take[name], outputs, passed)
        verifier = Verifier(predictor, outputs, terms, report, states)
        for partition, bounds in inputs.items():
            for records in reader.read(topic, partition, bounds):
                verifier.check(records, broker_time=reader.broker_time)
                passed.within(bounds, records[-1].offset + 1)
            passed.done(bounds)
            verifier.end_partition(topic, partition)
        return verifier.finish()


def output_topics(settings: Settings) -> tuple[str, str, str]:
    """Where answers go."""
    return settings.topics.predictions, settings.topics.shift_alerts, settings.topics.dead_letters


def _read_outputs(
    reader: LogReader,
    topic: str,
    partition: int,
    bounds: Bounds,
    take: Callable[[Record], None],
    outputs: Outputs,
    passed: _Passed,
) -> None:
    first = True
    for records in reader.read(topic, partition, bounds):
        if first and bounds.low > 0:  # retention took answers of before
            outputs.since_ms = max(outputs.since_ms, records[0].timestamp_ms)
        first = False
        for record in records:
            take(record)
        passed.within(bounds, records[-1].offset + 1)
    passed.done(bounds)


class _Passed:
    """Tells how much of all partitions has been read."""

    def __init__(self, progress: Progress, topics: list[Mapping[int, Bounds]]) -> None:
        self._progress = progress
        self._total = sum(b.end - b.low for found in topics for b in found.values())
        self._before = 0  # offsets of the partitions that are done

    def within(self, bounds: Bounds, offset: int) -> None:
        """The present partition has been read to before `offset`."""
        self._progress(self._before + offset - bounds.low, self._total)

    def done(self, bounds: Bounds) -> None:
        """The present partition has been read."""
        self._before += bounds.end - bounds.low
        self._progress(self._before, self._total)
