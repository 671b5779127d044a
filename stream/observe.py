"""What the worker tells the metrics, fact by fact, so that the loop reads without counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from stream.http import Health
from stream.metrics import Metrics
from stream.pipeline import Result, Step
from stream.ports import NO_TIMESTAMP

SHIFT_LIKELY = 0.5  # label shift="yes" from here on: more likely than not


class Observer:
    """Turns facts of the loop into observations."""

    def __init__(self, metrics: Metrics) -> None:
        self._m = metrics

    def read(self, records: int) -> None:
        """Records came in."""
        self._m.utterances_consumed.inc(records)

    def skewed(self, ahead_s: float) -> None:
        """Broker time was this far ahead of our clock."""
        if ahead_s:
            self._m.clock_skew.set(ahead_s)

    def rebalanced(self, kind: str, partitions: int) -> None:
        """Partitions came or went."""
        self._m.rebalances.labels(kind).inc(partitions)

    def gaps(self, partitions: int) -> None:
        """Partitions whose committed offset is no longer in the log."""
        self._m.offset_gaps.inc(partitions)

    def left(self, topic: str, partitions: Sequence[int]) -> None:
        """Partitions left: their gauges must not stay behind."""
        for partition in partitions:
            self._m.consumer_lag.remove_by_labels({"topic": topic, "partition": str(partition)})
            self._m.last_processed.remove_by_labels({"partition": str(partition)})

    def operated(self, step: Step) -> None:
        """What the store answered in one step."""
        for result, count in Counter(step.loads).items():
            self._m.state_operations.labels("load", result).inc(count)
        for saved, count in Counter(step.saves).items():
            self._m.state_operations.labels("save", saved.value).inc(count)
        self._m.fencing_rejections.inc(len(step.fenced))
        self._m.partition_moves.inc(step.moved)

    def store_away(self) -> None:
        """The store did not answer."""
        self._m.redis_up.set(0)
        self._m.state_operations.labels("any", "unavailable").inc()

    def answered(self, step: Step, began: float, produced_at: float, acked_at: float) -> None:
        """All that a batch sends is acknowledged. Times are monotonic seconds."""
        self._m.redis_up.set(1)
        self._m.batch_utterances.observe(len(step.results))
        for result in step.results:
            self._one(result)
            if result.event is not None:
                self._stages(result, step, began, produced_at, acked_at)

    def _stages(
        self, result: Result, step: Step, began: float, produced_at: float, acked_at: float
    ) -> None:
        m, item, times = self._m, result.item, step.times
        m.fetch_wait.observe(item.fetch_wait_s)
        m.decode.observe(item.decode_s)
        m.queue_wait.observe(max(0.0, began - item.polled_at - item.decode_s))
        m.state_load.observe(times.load_s)
        m.inference.observe(times.infer_s)
        m.state_save.observe(times.save_s)
        m.produce.observe(acked_at - produced_at)
        m.end_to_end.observe(item.fetch_wait_s + acked_at - item.polled_at)

    def _one(self, result: Result) -> None:
        m, record, event = self._m, result.item.record, result.event
        if record.timestamp_ms != NO_TIMESTAMP:
            m.last_processed.labels(str(record.partition)).set(record.timestamp_ms / 1000)
        if result.replay is not None:
            m.replays.labels(result.replay).inc()
        if result.reason is not None:
            m.dead_letters.labels(result.reason.value).inc()
        if result.outcome == "duplicate":
            kind = "utterance_id" if result.replay is None else "position"
            m.duplicates.labels(kind).inc()
        if event is None:
            return
        likely = event.shift is not None and event.shift.probability >= SHIFT_LIKELY
        m.predictions_emitted.labels(event.emotion, "yes" if likely else "no").inc()
        m.confidence.observe(event.confidence)
        m.window_utterances.observe(event.context.utterances)
        m.state_bytes.observe(result.state_bytes)
        m.seq_disorder.inc(bool(event.flags))
        m.context_truncated.inc(event.context.truncated)
        if result.alerted is not None:
            m.shift_alerts.labels(result.alerted).inc()

    def committed_in(self, seconds: float) -> None:
        """A commit took this long."""
        self._m.commit.observe(seconds)

    def final(self, outcomes: Sequence[str]) -> None:
        """These records are committed, with these outcomes."""
        self._m.records_committed.inc(len(outcomes))
        for outcome, count in Counter(outcomes).items():
            self._m.outcomes.labels(outcome).inc(count)

    def looked(
        self,
        *,
        health: Health,
        topic: str,
        lag: Mapping[int, int],
        queued: int,
        paused: int,
        cached: int,
        device_bytes: int,
    ) -> None:
        """How things stand."""
        m = self._m
        for partition, records in lag.items():
            m.consumer_lag.labels(topic, str(partition)).set(records)
        m.queue_depth.set(queued)
        m.partitions_paused.set(paused)
        m.conversations_active.set(cached)
        m.redis_up.set(health.store)
        m.ready.set(health.ready)
        m.gpu_memory.set(device_bytes)
