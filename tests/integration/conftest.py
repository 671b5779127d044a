"""Fresh topics on real Kafka, a real Redis, and workers that end with the test."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Producer

from stream import serve
from stream.brokers.topics import create, plan
from stream.events.messages import TopicNames
from stream.local.servers import RunningKafka, RunningRedis
from stream.settings import Settings
from tests.fakes.predictor import SmallPredictor
from tests.integration.workers import PARTITIONS, Site, ThreadWorker


@pytest.fixture
def site(kafka: RunningKafka, redis_server: RunningRedis) -> Site:
    """Fresh topics with broker time, and the session's Redis."""
    prefix = f"t{uuid.uuid4().hex[:8]}."
    create(kafka.bootstrap, plan(TopicNames(prefix), partitions=PARTITIONS))
    settings = Settings(
        bootstrap=kafka.bootstrap,
        redis_url=redis_server.url,
        topic_prefix=prefix,
        group=f"{prefix}workers",
        metrics_port=0,
    )
    producer = Producer(
        {
            "bootstrap.servers": kafka.bootstrap,
            "partitioner": "murmur2_random",
            "linger.ms": 2,
            "message.max.bytes": 3 << 20,
            "log_level": 0,
        }
    )
    return Site(settings, producer)


@pytest.fixture
def small_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers started in this process load the small model."""
    monkeypatch.setattr(serve, "load_predictor", lambda *args, **kwargs: SmallPredictor())


@pytest.fixture
def start(small_model: None) -> Iterator[Callable[[Settings], ThreadWorker]]:
    """Start workers as threads; what is still running at the end is drained."""
    running: list[ThreadWorker] = []

    def begin(settings: Settings) -> ThreadWorker:
        running.append(ThreadWorker(settings).start())
        return running[-1]

    yield begin
    for worker in running:
        worker.end()
