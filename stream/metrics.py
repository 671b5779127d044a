"""Every metric of emotrack, each named once; nobody else imports prometheus_client.

One registry per `Metrics`, so that two workers in a process do not share numbers. Base units. No
label holds a conversation, speaker or utterance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    generate_latest,
)

PREFIX: Final = "emotrack"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
# 0.5 ms is a step of one utterance, 10 s is an outage; dense where our latencies lie.
SECONDS: Final = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03,
    0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
COUNTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
WINDOW: Final = (0, 1, 2, 4, 6, 8, 10, 16, 32, 64)
SHARE: Final = tuple(i / 10 for i in range(1, 11))
BYTES: Final = tuple(float(1 << i) for i in range(10, 21))


class Metrics:
    """The catalogue. Attributes carry the names without the prefix `emotrack_`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._count_records()
        self._count_trouble()
        self._time_stages()
        self._show_state()

    def _count_records(self) -> None:
        # Records read from the utterances topic, whatever they hold.
        self.utterances_consumed = self._counter("utterances_consumed_total", "Records read.")
        # One per committed record: predicted, abstained, duplicate, dead_lettered, control.
        self.outcomes = self._counter("outcomes_total", "Outcomes of committed records.", "outcome")
        # Must equal the sum of the outcomes; an alert fires when it does not.
        self.records_committed = self._counter("records_committed_total", "Records committed.")
        # Acknowledged predictions that were computed (replays are not in here).
        self.predictions_emitted = self._counter(
            "predictions_emitted_total", "Predictions acknowledged.", "emotion", "shift"
        )
        # Alerts acknowledged, by rule.
        self.shift_alerts = self._counter("shift_alerts_total", "Shift alerts sent.", "rule")
        # Dead letters acknowledged, by reason code.
        self.dead_letters = self._counter("dead_letters_total", "Dead letters sent.", "reason")

    def _count_trouble(self) -> None:
        # utterance_id: a producer's repeat; position: applied before and nothing left to replay.
        self.duplicates = self._counter("duplicates_total", "Records without effect.", "kind")
        # Predictions flagged seq_gap or seq_disorder.
        self.seq_disorder = self._counter("seq_disorder_total", "`seq` out of order or with a gap.")
        # Partitions whose committed offset was no longer in the log at assignment.
        self.offset_gaps = self._counter("offset_gaps_total", "Retention overtook the group.")
        # Predictions that could not see all of their session.
        self.context_truncated = self._counter(
            "context_truncated_total", "Predictions with a truncated context."
        )
        # load: hit, found, missing, foreign, corrupt; save: saved, replay, fenced, lost;
        # either: unavailable.
        self.state_operations = self._counter(
            "state_operations_total", "Operations on conversation state.", "operation", "result"
        )
        # Writes refused because a newer owner of the partition had written.
        self.fencing_rejections = self._counter("fencing_rejections_total", "Writes fenced off.")
        # Conversations met on another partition than before: partitions were added, or two
        # producers use different partitioners.
        self.partition_moves = self._counter(
            "partition_moves_total", "Conversations that changed partition."
        )
        # assigned, revoked, lost: partitions, not events.
        self.rebalances = self._counter("rebalances_total", "Partitions that moved.", "kind")
        # sent: stored outputs were sent again; no_entry: there were none left.
        self.replays = self._counter("replays_total", "Positions met again.", "result")

    def _time_stages(self) -> None:
        # Broker append to acknowledged prediction; the seven stages below explain it.
        self.end_to_end = self._seconds("end_to_end_seconds", "Append to acknowledged prediction.")
        self.fetch_wait = self._seconds("fetch_wait_seconds", "Append to poll.")
        self.decode = self._seconds("decode_seconds", "Decoding one record.")
        self.queue_wait = self._seconds("queue_wait_seconds", "Waiting for its batch.")
        self.state_load = self._seconds("state_load_seconds", "Loading the batch's windows.")
        self.inference = self._seconds("inference_seconds", "Predicting the batch.")
        self.state_save = self._seconds("state_save_seconds", "Saving the batch's windows.")
        self.produce = self._seconds("produce_seconds", "Produce to acknowledgement.")
        # Outside end to end: the offset commit after it.
        self.commit = self._seconds("commit_seconds", "Committing offsets.")
        # How full batches are.
        self.batch_utterances = self._histogram("batch_utterances", "Records a batch.", COUNTS)
        # Context a prediction could see.
        self.window_utterances = self._histogram("window_utterances", "Past utterances.", WINDOW)
        # Arrays kept of one conversation after an utterance.
        self.state_bytes = self._histogram("state_bytes", "Arrays of a conversation.", BYTES)
        # Calibrated probability of the predicted emotion.
        self.confidence = self._histogram("confidence", "Confidence of predictions.", SHARE)

    def _show_state(self) -> None:
        # Records behind the end of the log.
        self.consumer_lag = self._gauge(
            "consumer_lag_records", "Records behind.", "topic", "partition"
        )
        # Conversations whose window this worker holds.
        self.conversations_active = self._gauge("conversations_active", "Windows held.")
        # Records decoded and not yet in a batch.
        self.queue_depth = self._gauge("queue_depth", "Records queued.")
        # Partitions not read from: queue full, store away, or not claimed yet.
        self.partitions_paused = self._gauge("partitions_paused", "Partitions paused.")
        # Broker time of the newest record answered.
        self.last_processed = self._gauge(
            "last_processed_timestamp_seconds", "Newest record answered.", "partition"
        )
        # How far broker time was ahead of this machine's clock at the last record that was.
        self.clock_skew = self._gauge("clock_skew_seconds", "Broker clock ahead of ours.")
        # 1 while the state store answers.
        self.redis_up = self._gauge("redis_up", "State store reachable.")
        # 1 while /readyz says so.
        self.ready = self._gauge("ready", "Ready for work.")
        # Memory the model uses on its device; 0 on CPU.
        self.gpu_memory = self._gauge("gpu_memory_bytes", "Device memory in use.")
        self.build = Info("build", "What runs.", namespace=PREFIX, registry=self.registry)
        self.model = Info("model", "Which model.", namespace=PREFIX, registry=self.registry)

    def describe(self, build: Mapping[str, str], model: Mapping[str, str]) -> None:
        """Set `build_info` and `model_info`."""
        self.build.info(dict(build))
        self.model.info(dict(model))

    def render(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=PREFIX, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, namespace=PREFIX, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, namespace=PREFIX, registry=self.registry, buckets=buckets)

    def _seconds(self, name: str, text: str) -> Histogram:
        return self._histogram(name, text, SECONDS)
