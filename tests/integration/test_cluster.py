"""A worker on a Redis Cluster: answers, what is kept of them, and what the verifier reads."""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka import Producer

from stream import serve
from stream.brokers.topics import create, plan
from stream.events.messages import TopicNames
from stream.local.servers import RunningKafka
from stream.settings import Settings
from stream.verify.run import verify_topics
from tests.fakes.predictor import SmallPredictor
from tests.integration.workers import PARTITIONS, Site, ThreadWorker, wait_for

pytestmark = pytest.mark.integration


def test_a_cluster_keeps_what_a_worker_says(
    kafka: RunningKafka, cluster_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = f"cl{uuid.uuid4().hex[:8]}."
    create(kafka.bootstrap, plan(TopicNames(prefix), partitions=PARTITIONS))
    settings = Settings(
        bootstrap=kafka.bootstrap,
        redis_url=cluster_url,
        redis_cluster=True,
        topic_prefix=prefix,
        group=f"{prefix}workers",
        metrics_port=0,
    )
    monkeypatch.setattr(serve, "load_predictor", lambda *_, **__: SmallPredictor())
    site = Site(settings, Producer({"bootstrap.servers": kafka.bootstrap, "log_level": 0}))
    worker = ThreadWorker(settings).start()
    for n in range(8):
        for c in range(12):
            site.say(f"c{c}", n)
    site.flush()
    wait_for(lambda: site.committed() == site.sent, "the commits", 120)
    assert worker.end() == 0
    report = verify_topics(settings, SmallPredictor(), allow_truncation=False)
    assert report.violations == []
    assert report.counts["states"] == 12
