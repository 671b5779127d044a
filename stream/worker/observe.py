"""Health and metrics of the worker, so that the loop reads without counters.

`Health` is what /readyz says, `Observer` what /metrics shows; `Servers` tells both of Kafka and
Redis.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from model.interface import ModelInfo
from stream.answers.shift_rule import rule_of
from stream.events.messages import FIELD_OF_FLAG, MOVED, SEQ_DISORDER, SEQ_GAP, PredictionEvent
from stream.metrics.catalogue import Metrics
from stream.ports import NO_TIMESTAMP, Seen
from stream.worker.notices import Presence
from stream.worker.pipeline import Result, Step

SHIFT_LIKELY: Final = 0.5  # label shift="yes" from here on: more likely than not


@dataclass(slots=True)
class Health:
    """The conditions of readiness; written by the worker's thread, read by any.

    `cluster` is written by the thread that looks at Kafka: the worker's may wait for it.
    """

    warmed: bool = False
    joined: bool = False  # assigned, or standing by with nothing assigned
    broker: bool = False  # it answered the worker's last call
    cluster: bool = True  # a broker answered the last look, as far as is known
    store: bool = False
    outputs: bool = True  # false while the broker refuses an answer for good
    checked: bool = True  # false while states of newly assigned partitions are checked
    draining: bool = False
    waiting: str = ""  # the fault that a start waits out; shown by /readyz

    @property
    def ready(self) -> bool:
        """True when this worker can take work now."""
        return all(self.parts().values())

    def parts(self) -> dict[str, bool]:
        """Return each condition by name, for the body of /readyz."""
        return {
            "model_warmed": self.warmed,
            "joined_group": self.joined,
            "broker_reachable": self.broker and self.cluster,
            "store_reachable": self.store,
            "outputs_taken": self.outputs,
            "states_checked": self.checked,
            "not_draining": not self.draining,
        }


class Observer:
    """The loop's counters, histograms and gauges."""

    def __init__(self, metrics: Metrics, info: ModelInfo) -> None:
        """Create the series of each emotion and alert that `info` allows."""
        self._m = metrics
        metrics.expect(info.labels, rule_of(info).name)

    def read(self, records: int, ahead_s: float) -> None:
        """Count records read; `ahead_s`: broker time of the newest ahead of our clock."""
        self._m.utterances_consumed.inc(records)
        if ahead_s > 0:
            self._m.clock_skew.set(ahead_s)

    def rebalanced(self, kind: str, partitions: int, gaps: int = 0) -> None:
        """Count partitions assigned, revoked or lost, and `gaps` at their committed offsets."""
        self._m.rebalances.labels(kind).inc(partitions)
        self._m.offset_gaps.inc(gaps)

    def lost(self, offsets: int) -> None:
        """Count offsets whose records left the log before they were read."""
        self._m.offsets_lost.inc(offsets)

    def left(self, topic: str, partitions: Sequence[int]) -> None:
        """Remove the gauges of partitions that have left."""
        for partition in partitions:
            self._m.consumer_lag.remove(topic, str(partition))
            self._m.last_processed.remove(str(partition))

    def operated(self, step: Step) -> None:
        """Count the store operations of one step."""
        for result, count in Counter(step.loads).items():
            self._m.state_operations.labels("load", result).inc(count)
        for saved, count in Counter(step.saves).items():
            self._m.state_operations.labels("save", saved.value).inc(count)
        self._m.fencing_rejections.inc(len(step.fenced))
        self._m.partition_moves.inc(len(step.splits))

    def rebuilt(self, states: Mapping[str, int]) -> None:
        """Count the states that were rebuilt, by cause."""
        for cause, count in states.items():
            self._m.state_rebuilds.labels(cause).inc(count)

    def saw(self, seen: Seen, health: Health) -> None:
        """Set the gauges of a look at the cluster; from any thread."""
        m = self._m
        m.broker_up.set(not seen.fault)
        m.ready.set(health.ready)
        if seen.partitions is not None:
            m.topic_partitions.set(seen.partitions)
        m.group_lag.set(math.nan if seen.waiting is None else seen.waiting)

    def store_away(self) -> None:
        """Count an unanswered call of the store."""
        self._m.redis_up.set(0)
        self._m.state_operations.labels("any", "unavailable").inc()

    def answered(self, step: Step, began: float, produced_at: float, acked_at: float) -> None:
        """Observe a batch whose outputs are all acknowledged. Times are monotonic seconds.

        Values of a whole batch are observed once, counts are added up before: this is on the path
        of every utterance.
        """
        self._m.redis_up.set(1)
        self._m.batch_utterances.observe(len(step.results))
        self._records(step.results)
        self._predictions([r.event for r in step.results if r.event is not None])
        self._stages(step, began, produced_at, acked_at)

    def _records(self, results: Sequence[Result]) -> None:
        """Count replays, dead letters, alerts and duplicates; set the time of the last record."""
        m = self._m
        answered: dict[int, int] = {}
        for result in results:
            record = result.item.record
            if record.timestamp_ms != NO_TIMESTAMP:
                answered[record.partition] = record.timestamp_ms
            if result.replay is not None:
                m.replays.labels(result.replay).inc()
            if result.reason is not None:
                m.dead_letters.labels(result.reason.value).inc()
            if result.alerted is not None:
                m.shift_alerts.labels(result.alerted).inc()
            if result.outcome == "duplicate":
                m.duplicates.labels(result.repeats or "position").inc()
        for partition, timestamp_ms in answered.items():
            m.last_processed.labels(str(partition)).set(timestamp_ms / 1000)

    def _predictions(self, events: Sequence[PredictionEvent]) -> None:
        m = self._m
        labels: Counter[tuple[str, bool]] = Counter()
        for event in events:
            likely = event.shift is not None and event.shift.probability >= SHIFT_LIKELY
            labels[event.emotion, likely] += 1
        m.confidence.observe_all([event.confidence for event in events])
        m.window_utterances.observe_all([event.context.utterances for event in events])
        for (emotion, likely), count in labels.items():
            m.predictions_emitted.labels(emotion, "yes" if likely else "no").inc(count)
        for reason, count in Counter(e.reason for e in events if e.reason is not None).items():
            m.abstentions.labels(reason).inc(count)
        flags = Counter(flag for event in events for flag in event.flags)
        m.seq_disorder.inc(flags[SEQ_GAP] + flags[SEQ_DISORDER])
        m.split_answers.inc(flags[MOVED])
        for flag, count in flags.items():
            if (field := FIELD_OF_FLAG.get(flag)) is not None:
                m.ignored_fields.labels(field).inc(count)
        m.context_truncated.inc(sum(event.context.truncated for event in events))

    def _stages(self, step: Step, began: float, produced_at: float, acked_at: float) -> None:
        """Observe each stage of each prediction: the sums explain the sum of end to end."""
        m = self._m
        predicted = [r for r in step.results if r.event is not None]
        items = [r.item for r in predicted]
        m.fetch_wait.observe_all([i.fetch_wait_s for i in items])
        m.decode.observe_all([i.decode_s for i in items])
        m.queue_wait.observe_all([max(0.0, began - i.polled_at - i.decode_s) for i in items])
        m.end_to_end.observe_all([i.fetch_wait_s + acked_at - i.polled_at for i in items])
        m.state_bytes.observe_all([r.state_bytes for r in predicted])
        for stage, seconds in (
            (m.state_load, step.load_s),
            (m.inference, step.infer_s),
            (m.state_save, step.save_s),
            (m.produce, acked_at - produced_at),
        ):
            stage.observe(seconds, len(predicted))

    def committed_in(self, seconds: float) -> None:
        """Observe the duration of a commit."""
        self._m.commit.observe(seconds)

    def final(self, records: int, outcomes: Sequence[str]) -> None:
        """Count committed records and their outcomes: two counts that must agree."""
        self._m.records_committed.inc(records)
        for outcome, count in Counter(outcomes).items():
            self._m.outcomes.labels(outcome).inc(count)

    def gauges(
        self,
        *,
        health: Health,
        topic: str,
        lag: Mapping[int, int],
        owned: int,
        checking: int,
        queued: int,
        paused: int,
        cached: int,
        device_bytes: int,
    ) -> None:
        """Set the gauges: lag, partitions and what keeps them, queue depth, health."""
        m = self._m
        m.last_turn.set_to_current_time()
        for partition, records in lag.items():
            m.consumer_lag.labels(topic, str(partition)).set(records)
        m.partitions_owned.set(owned)
        m.partitions_checking.set(checking)
        m.queue_depth.set(queued)
        m.partitions_paused.set(paused)
        m.conversations_active.set(cached)
        m.redis_up.set(health.store)
        m.ready.set(health.ready)
        m.gpu_memory.set(device_bytes)


class Servers:
    """Kafka and Redis as a worker sees them: told to /readyz, the gauges, and once to the log.

    `saw` is called by the thread that looks at Kafka, the rest by the worker's.
    """

    def __init__(self, health: Health, observer: Observer, clock_s: Callable[[], float]) -> None:
        self._health, self._observer = health, observer
        self._kafka, self._redis = Presence("Kafka", clock_s), Presence("Redis", clock_s)

    def saw(self, seen: Seen) -> None:
        """Take note of a look at the cluster."""
        if (up := not seen.fault) != self._health.cluster:
            self._health.cluster = up
            if up:
                self._kafka.back()
            else:
                self._kafka.away(seen.fault)
        self._observer.saw(seen, self._health)

    def store_up(self) -> None:
        """Take note of a call that the store answered."""
        if not self._health.store:
            self._health.store = True
            self._redis.back()

    def store_away(self, reason: str) -> None:
        """Take note of a call that it did not."""
        self._health.store = False
        self._redis.away(reason)
        self._observer.store_away()
