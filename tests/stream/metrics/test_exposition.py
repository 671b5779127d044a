"""The page parses to the same samples as the one of Prometheus' own client."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from stream.metrics.catalogue import Metrics
from stream.metrics.series import to_text

AWKWARD = 'a "quoted" \\ back\nslash'


def samples(page: bytes) -> list[tuple[str, str, str, tuple[tuple[str, str], ...], float]]:
    return [
        (f.type, f.documentation, s.name, tuple(sorted(s.labels.items())), s.value)
        for f in text_string_to_metric_families(page.decode())
        for s in f.samples
    ]


def test_a_worker_s_page_reads_as_the_one_of_the_prometheus_client() -> None:
    metrics = Metrics()
    metrics.describe({"version": "1"}, {"name": "m"})
    metrics.end_to_end.observe(0.3)
    for gauge in (metrics.redis_up, metrics.broker_up, metrics.topic_partitions, metrics.group_lag):
        gauge.set(1)
    metrics.last_turn.set(1.7e9)
    metrics.consumer_lag.labels("emotrack.utterances", "3").set(1e17)
    ours = {s for s in samples(metrics.render()) if s[2].startswith("emotrack_")}
    theirs = {s for s in samples(generate_latest(metrics.registry)) if s[2].startswith("emotrack_")}
    assert ours == theirs
    assert len(ours) > 300


def test_special_characters_and_values_are_read_back_unchanged() -> None:
    registry = CollectorRegistry()
    gauge = Gauge("g", AWKWARD, ["what"], registry=registry)
    for what, value in ((AWKWARD, float("inf")), ("nan", float("nan")), ("small", 5e-324)):
        gauge.labels(what).set(value)
    Counter("c", "C.", registry=registry).inc()
    Info("i", "I.", registry=registry).info({"is": AWKWARD})
    assert repr(samples(to_text(registry.collect()))) == repr(samples(generate_latest(registry)))
