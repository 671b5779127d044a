"""Every metric of emotrack, each named once.

One registry per `Metrics`, so that two workers in a process do not share numbers. Base units. No
label holds a conversation, speaker or utterance. Counters whose labels are a closed set start at 0,
so that the first event is an increase. `deploy.metrics_page` writes `docs/metrics.md`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Info,
    ProcessCollector,
    disable_created_metrics,
)

from stream.events.messages import IGNORABLE_FIELDS, Abstention, Outcome
from stream.events.poison import Reason
from stream.metrics.series import BatchHistogram, to_text

PREFIX: Final = "emotrack"
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
# 0.5 ms is a step of one utterance, 10 s is an outage; dense where our latencies are.
SECONDS: Final = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03,
    0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
COUNTS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
WINDOW: Final = (0, 1, 2, 4, 6, 8, 10, 16, 32, 64)
SHARE: Final = tuple(i / 10 for i in range(1, 11))
BYTES: Final = tuple(float(1 << i) for i in range(10, 21))
OPERATIONS: Final = (
    *(("load", result) for result in ("hit", "found", "missing", "foreign", "corrupt")),
    *(("save", result) for result in ("saved", "replay", "fenced", "lost")),
    ("any", "unavailable"),
)
Kind = Literal["counter", "gauge", "histogram", "info"]

# A `_created` series for each counter, which no query uses. (The library gives it no types.)
disable_created_metrics()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Entry:
    """One metric of the catalogue, for its page and tests."""

    name: str
    kind: Kind
    text: str
    labels: Mapping[str, str]  # the values of each label
    bounds: tuple[float, ...] = ()


class Metrics:
    """The catalogue. Attributes have the metrics' names, without prefix and unit."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.entries: list[Entry] = []
        ProcessCollector(registry=self.registry)
        self._count_records()
        self._count_disorder()
        self._count_state()
        self._observe_times()
        self._observe_sizes()
        self._show_state()

    def _count_records(self) -> None:
        self.utterances_consumed = self._counter(
            "utterances_consumed_total",
            "Records read from the utterances topic, whatever they hold; read again counts again.",
        )
        self.outcomes = self._counter(
            "outcomes_total",
            "Committed records by what became of them.",
            outcome=get_args(Outcome),
        )
        self.records_committed = self._counter(
            "records_committed_total",
            "Records below the committed offsets, counted where they were read: must equal the "
            "sum of the outcomes.",
        )
        self.predictions_emitted = self._counter(
            "predictions_emitted_total",
            "Predictions computed and acknowledged by the broker; replays are not in here.",
            emotion="a label of the model",
            shift="yes where a shift is more likely than not, else no",
        )
        self.abstentions = self._counter(
            "abstentions_total",
            "Predictions that say not to act on them, replays not counted. language: outside of "
            "the languages that the checkpoint states; unknown_words: most tokens unknown to its "
            "tokenizer, or nothing visible said.",
            reason=get_args(Abstention),
        )
        self.shift_alerts = self._counter(
            "shift_alerts_total", "Shift alerts acknowledged.", rule="name of the rule"
        )
        self.dead_letters = self._counter(
            "dead_letters_total",
            "Dead letters acknowledged, replays too.",
            reason=[reason.value for reason in Reason],
        )

    def _count_disorder(self) -> None:
        self.duplicates = self._counter(
            "duplicates_total",
            "Records without an answer of their own. utterance_id: a producer's repeat; "
            "late_fields: the same words under a known id, other fields new or changed; "
            "other_utterance: another speaker or other words under a known id, dropped; position: "
            "applied before and nothing left to replay.",
            kind=("utterance_id", "late_fields", "other_utterance", "position"),
        )
        self.seq_disorder = self._counter(
            "seq_disorder_total", "Predictions whose `seq` came out of order or after a gap."
        )
        self.ignored_fields = self._counter(
            "ignored_fields_total",
            "Predictions that left out a field which no answer needs and which did not fit "
            "(text: half a character became U+FFFD); each is flagged.",
            field=(*IGNORABLE_FIELDS, "text"),
        )
        self.offset_gaps = self._counter(
            "offset_gaps_total",
            "Partitions whose committed offset was no longer in the log at assignment: retention "
            "overtook the group.",
        )
        self.offsets_lost = self._counter(
            "offsets_lost_total",
            "Offsets whose records left the log before a worker read them (compaction, deletion): "
            "contexts that may lack them say that they are truncated.",
        )
        self.context_truncated = self._counter(
            "context_truncated_total", "Predictions that could not see all of their session."
        )

    def _count_state(self) -> None:
        self.state_operations = self._counter(
            "state_operations_total",
            "Operations on conversation state.",
            operation="load, save; any where the store did not answer",
            result="load: hit (in the cache), found, missing, foreign (of another model), corrupt; "
            "save: saved, replay, fenced, lost; any: unavailable",
        )
        for operation, result in OPERATIONS:
            self.state_operations.labels(operation, result)
        self.state_rebuilds = self._counter(
            "state_rebuilds_total",
            "Conversation states computed again from the log, because the store had lost them "
            "(missing_state), held an older one (stale_state), one that does not decode "
            "(corrupt_state) or one of another model (other_model).",
            cause=("missing_state", "stale_state", "corrupt_state", "other_model"),
        )
        self.fencing_rejections = self._counter(
            "fencing_rejections_total",
            "Writes refused because a newer owner of the partition had written.",
        )
        self.partition_moves = self._counter(
            "partition_moves_total",
            "Conversations met on one more partition: producers use different partitioners, or "
            "partitions were added. Counted once for each further partition.",
        )
        self.split_answers = self._counter(
            "split_answers_total",
            "Predictions with flag `moved`: their conversation is on several partitions, so they "
            "may lack context.",
        )
        self.rebalances = self._counter(
            "rebalances_total",
            "Partitions that came or went.",
            kind=("assigned", "revoked", "lost"),
        )
        self.replays = self._counter(
            "replays_total",
            "Positions met again. sent: the stored outputs were sent again; no_entry: none left.",
            result=("sent", "no_entry"),
        )

    def _observe_times(self) -> None:
        self.end_to_end = self._histogram(
            "end_to_end_seconds",
            "Broker append to acknowledged prediction; the seven stages explain it.",
        )
        self.fetch_wait = self._histogram("fetch_wait_seconds", "Stage 1: broker append to poll.")
        self.decode = self._histogram("decode_seconds", "Stage 2: decoding one record.")
        self.queue_wait = self._histogram(
            "queue_wait_seconds", "Stage 3: waiting for its batch, tries that failed included."
        )
        self.state_load = self._histogram("state_load_seconds", "Stage 4: loading the windows.")
        self.inference = self._histogram("inference_seconds", "Stage 5: predicting the batch.")
        self.state_save = self._histogram("state_save_seconds", "Stage 6: saving the windows.")
        self.produce = self._histogram("produce_seconds", "Stage 7: produce to acknowledgement.")
        self.commit = self._histogram(
            "commit_seconds", "Committing offsets, after and outside end to end."
        )

    def _observe_sizes(self) -> None:
        self.batch_utterances = self._histogram("batch_utterances", "Records a batch.", COUNTS)
        self.window_utterances = self._histogram(
            "window_utterances", "Past utterances a prediction could see.", WINDOW
        )
        self.state_bytes = self._histogram(
            "state_bytes", "Arrays kept of a conversation after an utterance.", BYTES
        )
        self.confidence = self._histogram(
            "confidence", "Calibrated probability of the predicted emotion.", SHARE
        )

    def _show_state(self) -> None:
        of_partition = "number of an owned partition"
        self.consumer_lag = self._gauge(
            "consumer_lag_records",
            "Records in the log that have no answer yet: not read, queued, or in a batch; also "
            "while the log is read again. Nobody's partitions are in `group_lag_records` only.",
            topic="the utterances topic",
            partition=of_partition,
        )
        self.group_lag = self._gauge(
            "group_lag_records",
            "Records of the whole topic beyond the group's committed offsets, whoever owns their "
            "partitions, or nobody: the same on each worker, asked every 10 s; absent while it is "
            "not known.",
        )
        self.last_processed = self._gauge(
            "last_processed_timestamp_seconds",
            "Broker time of the newest record answered.",
            partition=of_partition,
        )
        self.last_turn = self._gauge(
            "last_turn_timestamp_seconds",
            "When the loop last wrote these gauges, once a second: a loop that hangs stops it. "
            "Absent before its first turn.",
        )
        self.conversations_active = self._gauge(
            "conversations_active", "Conversations whose window this worker holds."
        )
        self.queue_depth = self._gauge("queue_depth", "Records read and not yet in a batch.")
        self.topic_partitions = self._gauge(
            "topic_partitions", "Partitions of the utterances topic; absent before it is known."
        )
        self.partitions_owned = self._gauge(
            "partitions_owned",
            "Partitions that this worker owns: with those of the other workers as many as "
            "`emotrack_topic_partitions`, else some are read by nobody.",
        )
        self.partitions_checking = self._gauge(
            "partitions_checking",
            "Owned partitions that stand still while their states are checked against the log or "
            "computed again, or wait for their turn in that.",
        )
        self.partitions_paused = self._gauge(
            "partitions_paused", "Partitions not read from: queue full, store away, unclaimed."
        )
        self.clock_skew = self._gauge(
            "clock_skew_seconds",
            "How far broker time was ahead of this machine's clock at the last record that was.",
        )
        self.redis_up = self._gauge(
            "redis_up", "1 while the state store answers; absent before it was asked."
        )
        self.broker_up = self._gauge(
            "broker_up",
            "1 while a Kafka broker answers, asked every 2 s; absent before it was asked.",
        )
        self.ready = self._gauge("ready", "1 while /readyz says so.")
        self.gpu_memory = self._gauge(
            "gpu_memory_bytes", "Memory the model uses on its device; 0 on CPU."
        )
        # Absent while a worker starts, or while nobody knows: 0 would page, or be an untruth.
        unknown = self.last_turn, self.redis_up, self.broker_up, self.topic_partitions
        for gauge in (*unknown, self.group_lag):
            gauge.set(math.nan)
        self.build = self._info("build", "What runs.", ("version",))
        model_labels = (
            "name",
            "version",
            "digest",
            "state_digest",
            "calibration",
            "device",
            "languages",
        )
        self.model = self._info("model", "Which model runs where.", model_labels)

    def describe(self, build: Mapping[str, str], model: Mapping[str, str]) -> None:
        """Set `build_info` and `model_info`."""
        self.build.info(dict(build))
        self.model.info(dict(model))

    def expect(self, emotions: Iterable[str], rule: str) -> None:
        """Start the counts of these emotions and of this rule's alerts at 0."""
        self.shift_alerts.labels(rule)
        for emotion in emotions:
            self.predictions_emitted.labels(emotion, "yes")
            self.predictions_emitted.labels(emotion, "no")

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format, without gauges that have no value yet."""
        families = self.registry.collect()
        return to_text(f for f in families if not (f.samples and math.isnan(f.samples[0].value)))

    def _enter(
        self,
        name: str,
        kind: Kind,
        text: str,
        labels: Mapping[str, str | Sequence[str]],
        bounds: tuple[float, ...] = (),
    ) -> None:
        shown = {k: v if isinstance(v, str) else ", ".join(v) for k, v in labels.items()}
        self.entries.append(Entry(f"{PREFIX}_{name}", kind, text, shown, bounds))

    def _counter(self, name: str, text: str, **labels: str | Sequence[str]) -> Counter:
        """Add a counter; a single label with a sequence of values starts each of them at 0."""
        self._enter(name, "counter", text, labels)
        counter = Counter(name, text, tuple(labels), namespace=PREFIX, registry=self.registry)
        for values in labels.values():
            for value in () if isinstance(values, str) else values:
                counter.labels(value)
        return counter

    def _gauge(self, name: str, text: str, **labels: str) -> Gauge:
        self._enter(name, "gauge", text, labels)
        return Gauge(name, text, tuple(labels), namespace=PREFIX, registry=self.registry)

    def _info(self, name: str, text: str, labels: Iterable[str]) -> Info:
        self._enter(f"{name}_info", "info", text, dict.fromkeys(labels, "as in /version"))
        return Info(name, text, namespace=PREFIX, registry=self.registry)

    def _histogram(
        self, name: str, text: str, bounds: tuple[float, ...] = SECONDS
    ) -> BatchHistogram:
        self._enter(name, "histogram", text, {}, bounds)
        histogram = BatchHistogram(f"{PREFIX}_{name}", text, bounds)
        self.registry.register(histogram)
        return histogram
