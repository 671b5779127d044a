"""The catalogue: complete, in base units, and without anything personal in a label."""

from __future__ import annotations

import time
import urllib.request
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from deploy.metrics_page import document
from stream.metrics.catalogue import Metrics
from stream.worker.observe import Health
from stream.worker.status_server import StatusServer

PERSONAL = {"conversation", "conversation_id", "speaker", "speaker_id", "utterance", "user", "key"}
EXPECTED = {
    "utterances_consumed", "outcomes", "abstentions", "predictions_emitted", "records_committed",
    "shift_alerts", "dead_letters", "duplicates", "seq_disorder", "ignored_fields", "offset_gaps",
    "offsets_lost", "partition_moves", "split_answers", "state_rebuilds",
    "context_truncated", "state_operations", "fencing_rejections", "rebalances", "replays",
    "end_to_end_seconds",
    "fetch_wait_seconds", "decode_seconds", "queue_wait_seconds", "state_load_seconds",
    "inference_seconds", "state_save_seconds", "produce_seconds", "commit_seconds",
    "batch_utterances", "window_utterances", "state_bytes", "confidence", "consumer_lag_records",
    "conversations_active", "queue_depth", "partitions_paused", "last_processed_timestamp_seconds",
    "last_turn_timestamp_seconds", "clock_skew_seconds", "redis_up", "ready", "gpu_memory_bytes",
    "build_info", "model_info", "broker_up", "partitions_owned", "topic_partitions",
    "partitions_checking", "group_lag_records",
}  # fmt: skip
SERIES = 10_000
SCRAPE_S = 0.1
TRIES = 9


def families(metrics: Metrics) -> dict[str, Metric]:
    text = metrics.render().decode()
    found = {f.name: f for f in text_string_to_metric_families(text)}
    return {n.removeprefix("emotrack_"): f for n, f in found.items() if n.startswith("emotrack_")}


def test_the_catalogue_is_whole_and_each_metric_is_there_once() -> None:
    metrics = Metrics()
    starting = set(families(metrics))
    metrics.last_turn.set(1.7e9)
    for gauge in (metrics.redis_up, metrics.broker_up, metrics.topic_partitions, metrics.group_lag):
        gauge.set(0)
    assert set(families(metrics)) == EXPECTED
    assert EXPECTED - starting == {
        "last_turn_timestamp_seconds", "redis_up", "broker_up", "topic_partitions",
        "group_lag_records",
    }, "0 would page, or be an untruth"  # fmt: skip
    named = [e.name.removeprefix("emotrack_").removesuffix("_total") for e in metrics.entries]
    assert sorted(named) == sorted(EXPECTED)


def test_no_label_holds_anything_personal() -> None:
    assert not any(PERSONAL & set(entry.labels) for entry in Metrics().entries)


def test_every_metric_has_a_help_sentence() -> None:
    assert all(f.documentation.endswith(".") for f in families(Metrics()).values())


def test_the_page_in_the_docs_is_the_catalogue() -> None:
    page = Path(__file__).parents[3] / "docs/metrics.md"
    assert page.read_text("utf-8") == document(Metrics()), (
        "run: python -m deploy.metrics_page > docs/metrics.md"
    )


def test_closed_sets_of_labels_start_at_zero() -> None:
    """Else Prometheus' `rate` misses the first dead letter, and an alert comes one too late."""
    metrics = Metrics()
    metrics.expect(("joy", "anger"), "onset")
    known = {
        ("emotrack_outcomes_total", "outcome", "dead_lettered"),
        ("emotrack_dead_letters_total", "reason", "bad_json"),
        ("emotrack_replays_total", "result", "no_entry"),
        ("emotrack_shift_alerts_total", "rule", "onset"),
    }
    for name, label, value in known:
        assert metrics.registry.get_sample_value(name, {label: value}) == 0
    labels = {"emotion": "joy", "shift": "yes"}
    assert metrics.registry.get_sample_value("emotrack_predictions_emitted_total", labels) == 0


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


def test_a_scrape_of_ten_thousand_series_takes_at_most_a_tenth_of_a_second() -> None:
    """A worker that owns 5,000 partitions; the client's own CPU is in the figure, too.

    CPU seconds, which are what it takes on a core of its own: tests share theirs.
    """
    metrics = Metrics()
    for partition in range(SERIES // 2):
        metrics.consumer_lag.labels("emotrack.utterances", str(partition)).set(partition)
        metrics.last_processed.labels(str(partition)).set(1.7e9 + partition)
    server = StatusServer(
        "127.0.0.1",
        0,
        health=Health(),
        render=metrics.render,
        version={},
    )
    try:
        cpu_s = [scrape_cpu_s(server.url) for _ in range(TRIES)]
    finally:
        server.close()
    print(f"scrape of {SERIES} series: {min(cpu_s):.3f} … {max(cpu_s):.3f} s of CPU")
    assert sorted(cpu_s)[TRIES // 2] <= SCRAPE_S


def scrape_cpu_s(url: str) -> float:
    began = time.process_time()
    page = urllib.request.urlopen(f"{url}/metrics", timeout=10).read()
    took = time.process_time() - began
    assert page.count(b"\n") > SERIES
    return took
