"""The catalogue: complete, in base units, and without anything personal in a label."""

from __future__ import annotations

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from stream.metrics import Metrics

PERSONAL = {"conversation", "conversation_id", "speaker", "speaker_id", "utterance", "user", "key"}
EXPECTED = {
    "utterances_consumed", "outcomes", "predictions_emitted", "records_committed", "shift_alerts",
    "dead_letters", "duplicates", "seq_disorder", "offset_gaps", "partition_moves",
    "context_truncated", "state_operations", "fencing_rejections", "rebalances", "replays",
    "end_to_end_seconds",
    "fetch_wait_seconds", "decode_seconds", "queue_wait_seconds", "state_load_seconds",
    "inference_seconds", "state_save_seconds", "produce_seconds", "commit_seconds",
    "batch_utterances", "window_utterances", "state_bytes", "confidence", "consumer_lag_records",
    "conversations_active", "queue_depth", "partitions_paused", "last_processed_timestamp_seconds",
    "clock_skew_seconds", "redis_up", "ready", "gpu_memory_bytes", "build_info", "model_info",
}  # fmt: skip


def families(metrics: Metrics) -> dict[str, Metric]:
    text = metrics.render().decode()
    found = {f.name: f for f in text_string_to_metric_families(text)}
    ours = {n.removeprefix("emotrack_"): f for n, f in found.items() if n.startswith("emotrack_")}
    return {n: f for n, f in ours.items() if not n.endswith("_created")}


def test_the_catalogue_is_whole_and_each_metric_is_there_once() -> None:
    assert set(families(Metrics())) == EXPECTED


def test_no_label_holds_anything_personal() -> None:
    metrics = Metrics()
    for collector in vars(metrics).values():
        assert not PERSONAL & set(getattr(collector, "_labelnames", ()))


def test_every_metric_says_what_it_is() -> None:
    assert all(f.documentation.endswith(".") for f in families(Metrics()).values())


def test_two_workers_in_a_process_do_not_share_numbers() -> None:
    one, two = Metrics(), Metrics()
    one.utterances_consumed.inc(3)
    assert two.registry.get_sample_value("emotrack_utterances_consumed_total") == 0
    assert one.registry.get_sample_value("emotrack_utterances_consumed_total") == 3


def test_identity_is_shown() -> None:
    metrics = Metrics()
    metrics.describe({"version": "1.2"}, {"digest": "ab", "name": "m"})
    assert metrics.registry.get_sample_value("emotrack_build_info", {"version": "1.2"}) == 1
    labels = {"digest": "ab", "name": "m"}
    assert metrics.registry.get_sample_value("emotrack_model_info", labels) == 1
